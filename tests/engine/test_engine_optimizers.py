from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from txlplan.engine import optimizers
from txlplan.engine.lamb import Lamb
from txlplan.nn import TransformerXL
from txlplan.workload import Optimization


def test_lamb_equals_the_paper():
    """Algorithm 2 of arXiv:1904.00962, in float64."""
    rng = np.random.default_rng(1)
    w, lr, b1, b2, eps, decay = rng.normal(size=(3, 4)), 0.02, 0.9, 0.99, 1e-6, 0.1
    parameter = nn.Parameter(torch.tensor(w))
    optimizer = Lamb([{"params": [parameter]}], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step in range(1, 6):
        gradient = rng.normal(size=w.shape)
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        r = (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + eps) + decay * w
        w = w - lr * np.linalg.norm(w) / np.linalg.norm(r) * r
    np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-12)


def test_lamb_moves_a_zero_parameter():
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    Lamb([{"params": [parameter]}], lr=0.1).step()
    np.testing.assert_allclose(parameter.detach().numpy(), -0.1, rtol=1e-4)


def test_biases_and_gains_are_not_decayed(tiny_model):
    model = TransformerXL(tiny_model)
    decayed, kept = optimizers.parameter_groups(Optimization(weight_decay=0.1), model)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kept_names = [names[id(parameter)] for parameter in kept["params"]]
    assert all("bias" in name or "norm" in name for name in kept_names)
    assert any(name.endswith("content_bias") for name in kept_names)
    assert not any("bias" in names[id(parameter)] or "norm" in names[id(parameter)] for parameter in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("adafactor", torch.optim.Adafactor), ("lamb", Lamb)],
)
def test_every_optimizer_reduces_a_loss_and_its_state_moves(tiny_model, name, kind):
    torch.manual_seed(1)
    model = TransformerXL(tiny_model)
    tokens = torch.randint(0, 256, (2, 8))
    optimizer = optimizers.create(Optimization(optimizer=name, learning_rate=1e-2), model)
    assert isinstance(optimizer, kind)
    losses = []
    for _ in range(8):
        hidden, _ = model(tokens, model.initial_memory(2), torch.tensor(0))
        loss = model.nll(hidden, tokens).mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert losses[-1] < losses[0]
    state = optimizers.named_state(optimizer, model)
    other = optimizers.create(Optimization(optimizer=name, learning_rate=1e-2), model)
    optimizers.set_state(other, model, state)
    assert optimizers.named_state(other, model).keys() == state.keys()
    assert {key.rpartition("/")[0] for key in state} == {key for key, _ in model.named_parameters()}
