"""Gradients scaled down to a norm of all together, on the way of an optimizer that goes over them anyway."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SLIGHT = 1e-6
"""Added to the norm, as torch does, so that nothing is divided by zero."""


def clip(optimizer: torch.optim.Optimizer, most: float, *, scaled: bool) -> None:
    """Scale the gradients for the next step so that their norm is at most `most`.

    Fused optimizers divide by a factor as they read them. `scaled`: the loss was, whose scaler keeps that factor to itself, and
    the gradients, unscaled by now, are scaled here.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
    norm = total_norm([each.grad for each in parameters])
    if optimizer.defaults.get("fused") and not scaled:
        optimizer.grad_scale = ((norm + _SLIGHT) / most).clamp(min=1.0)  # type: ignore[attr-defined]
    else:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all as one vector, [].

    On a CPU torch reads a whole tensor by one thread, and its rows by all.
    """
    if not tensors or tensors[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(tensors)
    norm = torch.linalg.vector_norm
    return norm(torch.cat([norm(each, dim=-1).flatten() for each in tensors]))
