from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from txlplan.cost._update import update
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


def test_lamb_updates_parameters_together_as_it_does_each_alone():
    """Of several shapes and weights of zero, one without a gradient in some steps, whose count then lags; in float64."""
    torch.manual_seed(1)
    start = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 4), (5,), (2, 3, 4), (1,))] + [torch.zeros(3).double()]
    together, alone = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 0.1}
    optimizers_ = [Lamb([{"params": together}], **settings), Lamb([{"params": [each]} for each in alone], **settings)]
    for step in range(6):
        for index, (one, other) in enumerate(zip(together, alone, strict=True)):
            gradient = None if index == 1 and step % 2 else torch.randn_like(one)
            one.grad = other.grad = gradient
        for optimizer in optimizers_:
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


def test_buckets_hold_every_parameter_once_and_little(monkeypatch, tiny_model):
    monkeypatch.setattr(optimizers, "UPDATED_TOGETHER", 5_000)
    model = TransformerXL(tiny_model)
    settings = Optimization(optimizer="lamb", weight_decay=0.1)
    buckets = optimizers.create(settings, model).param_groups
    whole = {
        id(each): group["weight_decay"] for group in optimizers.parameter_groups(settings, model) for each in group["params"]
    }
    placed = [(id(each), bucket["weight_decay"]) for bucket in buckets for each in bucket["params"]]
    assert len(buckets) > 2
    assert len(placed) == len(whole)
    assert dict(placed) == whole
    for bucket in buckets:
        sizes = [each.numel() for each in bucket["params"]]
        assert len(sizes) == 1 or sum(sizes) <= 5_000


@pytest.mark.parametrize("name", ["lamb", "adafactor"])
def test_an_update_runs_the_operations_that_are_counted(tiny_model, name):
    """One step's operations on a tensor, those that operations on lists make among them, without views and conversions."""
    model, settings = TransformerXL(tiny_model), Optimization(optimizer=name)
    optimizer = optimizers.create(settings, model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    outer = ("Optimizer.step", "aten::_foreach")
    run = [
        event.name
        for event in profile.events()
        if event.cpu_parent is not None and event.cpu_parent.name.startswith(outer) and not event.name.startswith(outer)
    ]
    kernels = sum(operation not in ("aten::to", "aten::unbind", "aten::stack") for operation in run)
    op = update(settings, tiny_model, "fp32")[-1]
    assert kernels == pytest.approx(op.launches, rel=0.04)


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
