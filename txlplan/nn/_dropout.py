"""Dropout (Srivastava et al. 2014) with masks that are cheap to draw on a CPU: bytes by torch, or by code of our own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from txlplan.nn._dropout_code import LEVELS, dropped, dropped_relu

_PER_DRAW = 4
"""Numbers of 16 bits that one draw of 64 gives."""


def keep_mask(shape: Sequence[int], rate: float, device: torch.device) -> Tensor:
    """1 with probability 1 - rate, to within 2^-17, else 0: one draw of torch's generator serves four elements.

    On one thread of a CPU torch's own Bernoulli numbers take one draw each. Bytes, and compared as 16 bits before: to and from
    booleans torch converts one element at a time, two to ten times as slowly.
    """
    count, dropped_levels = prod(shape), round(rate * LEVELS)
    if dropped_levels == LEVELS:  # which no number of 16 bits reaches
        return torch.zeros(*shape, dtype=torch.int8, device=device)
    draws = torch.empty(-(-count // _PER_DRAW), dtype=torch.int64, device=device).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[:count]
    torch.ge(numbers, dropped_levels - LEVELS // 2, out=numbers)
    return numbers.to(torch.int8).view(*shape)


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` in training, and divides the others by 1 - rate.

    On a CPU by compiled code of our own where `compiled`, else it keeps its mask as bytes.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.compiled = False

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        if self.compiled:
            return dropped(x, self.rate)
        out: Tensor = _Drop.apply(x, keep_mask(x.shape, self.rate, x.device), 1 / (1 - self.rate))
        return out

    def of_relu(self, x: Tensor) -> Tensor:
        """Of what is above 0 of `x`; by code of our own in one pass."""
        own = self.compiled and self.training and self.rate > 0 and x.device.type == "cpu"
        out: Tensor = dropped_relu(x, self.rate) if own else self(F.relu(x))
        return out


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return _scaled(x, keep, scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return _scaled(gradient, keep, ctx.scale), None, None


def _scaled(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """x · keep · scale."""
    return (x * keep).mul_(scale)
