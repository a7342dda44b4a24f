"""Clipping against torch's own, by what the weights become."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from txlplan.engine import optimizers
from txlplan.engine.clipping import clip, total_norm
from txlplan.nn import TransformerXL
from txlplan.workload import Optimization


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lamb", "adafactor"])
@pytest.mark.parametrize("scale", [None, 8.0])
@pytest.mark.parametrize("most", [0.5, 1e6])
def test_steps_are_those_of_gradients_that_torch_clips(tiny_model, optimizer, scale, most):
    """Two steps of other gradients, three times as large, both clipped or none; with a loss that is scaled, or is not."""
    ours, theirs = TransformerXL(tiny_model), TransformerXL(tiny_model)
    theirs.load_state_dict(ours.state_dict())
    settings = Optimization(optimizer=optimizer, learning_rate=0.01, epsilon=1e-3)
    our_steps, their_steps = (optimizers.create(settings, model) for model in (ours, theirs))
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    scaler.scale(torch.zeros(()))
    for times in (1.0, 3.0):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = times * torch.randn_like(other)
            one.grad = other.grad * (scale or 1.0)
        scaler.unscale_(our_steps)
        clip(our_steps, most, scaled=scaler.is_enabled())
        scaler.step(our_steps)
        scaler.update()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), most)
        assert bool(norm > 2 * most) is (most == 0.5)
        their_steps.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_what_was_not_reached_is_not_clipped():
    reached, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([reached, other], fused=True)
    reached.grad = torch.tensor([3.0, 4.0])
    clip(optimizer, 2.5, scaled=False)
    optimizer.step()
    torch.testing.assert_close(reached.grad, torch.tensor([1.5, 2.0]))
    assert torch.equal(other, torch.ones(3))


@pytest.mark.parametrize("shapes", [[], [()], [(7,)], [(3, 5), (2, 3, 4), (1,), ()], [(0, 4), (2, 2)]], ids=str)
def test_the_norm_is_that_of_all_as_one_vector(shapes):
    tensors = [torch.randn(shape).transpose(0, -1) if len(shape) > 1 else torch.randn(shape) for shape in shapes]
    whole = torch.cat([torch.zeros(0), *(each.flatten() for each in tensors)])
    torch.testing.assert_close(total_norm(tensors).double(), whole.double().norm(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("clipped", [False, True])
def test_a_norm_that_is_no_number_is_seen_in_the_weights(clipped):
    """As it is with torch's clipping: the step after tells."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    parameter.grad = torch.tensor([1.0, float("nan"), 1.0])
    if clipped:
        clip(optimizer, 1.0, scaled=False)
    optimizer.step()
    assert parameter.isnan().any()
