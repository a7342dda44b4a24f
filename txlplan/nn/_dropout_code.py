"""Dropout by compiled code of our own, `dropout.cpp`: a mask is drawn anew from its seed wherever it is wanted, and not kept.

As operations of torch's, so that they are traced. A seed is drawn from torch's generator; with it a mask of so many elements is
the same by any number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from txlplan.nn._operations import define
from txlplan.nn._own_code import library

LEVELS = 1 << 16
"""Of the numbers that decide over an element."""
_CODE = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def new_seed() -> Tensor:
    """Of a mask: 64 random bits, [] int64."""
    return torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None)


def dropped(x: Tensor, rate: float) -> Tensor:
    """Elements of `x` on a CPU zeroed with probability `rate`, to within 2^-17, and the others divided by 1 - rate."""
    out: Tensor = _Drop.apply(x, new_seed(), rate)
    return out


def dropped_relu(x: Tensor, rate: float) -> Tensor:
    """`dropped` of what is above 0 of `x`, by the same mask. Keeps its result alone, which tells both."""
    if x.dtype not in _CODE:
        return dropped(F.relu(x), rate)
    out: Tensor = _DropRelu.apply(x, new_seed(), rate)
    return out


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, rate: float) -> Tensor:
        ctx.seed, ctx.rate = seed, rate  # not saved: what is checkpointed need not be run again for it
        return _scaled(x, seed, rate)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _scaled(gradient, ctx.seed, ctx.rate), None, None


class _DropRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, rate: float) -> Tensor:
        out: Tensor = _OPS.drop.default(x.contiguous(), seed, rate, True)
        ctx.save_for_backward(out)
        ctx.rate = rate
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        return _OPS.drop_relu_backward.default(gradient.contiguous(), out, ctx.rate), None, None


def _scaled(x: Tensor, seed: Tensor, rate: float) -> Tensor:
    """In one pass where there is code for it."""
    if x.dtype in _CODE:
        scaled: Tensor = _OPS.drop.default(x.contiguous(), seed, rate, False)
        return scaled
    return (x * compiled_mask(x.shape, seed, rate)).mul_(1 / (1 - rate))


def compiled_mask(shape: Sequence[int], seed: Tensor, rate: float) -> Tensor:
    """What `dropped` keeps of a tensor of that shape by this seed: 1 for that, else 0, int8."""
    keep: Tensor = _OPS.keep.default(seed, list(shape), rate)
    return keep


def _drop(x: Tensor, seed: Tensor, rate: float, relu: bool) -> Tensor:
    out = torch.empty_like(x)
    _call(f"drop_relu_{_CODE[x.dtype]}" if relu else f"drop_{_CODE[x.dtype]}", _mask(x.numel(), rate, int(seed)), x, out)
    return out


def _drop_relu_backward(gradient: Tensor, out: Tensor, rate: float) -> Tensor:
    assert gradient.dtype == out.dtype
    of_x = torch.empty_like(gradient)
    _call(f"drop_relu_backward_{_CODE[out.dtype]}", _mask(out.numel(), rate), gradient, out, of_x)
    return of_x


def _keep(seed: Tensor, shape: Sequence[int], rate: float) -> Tensor:
    out = seed.new_empty(shape, dtype=torch.int8)
    _call("keep", _mask(prod(shape), rate, int(seed)), out)
    return out


_LIBRARY = define(
    ("drop(Tensor x, Tensor seed, float rate, bool relu) -> Tensor", _drop, lambda x, *_: torch.empty_like(x)),
    (
        "drop_relu_backward(Tensor gradient, Tensor out, float rate) -> Tensor",
        _drop_relu_backward,
        lambda gradient, *_: torch.empty_like(gradient),
    ),
    (
        "keep(Tensor seed, SymInt[] shape, float rate) -> Tensor",
        _keep,
        lambda seed, shape, _rate: seed.new_empty(shape, dtype=torch.int8),
    ),
)
_OPS = torch.ops.txlplan


def _call(name: str, mask: _Mask, *tensors: Tensor) -> None:
    assert all(each.is_contiguous() for each in tensors)
    getattr(library("dropout"), name)(ctypes.byref(mask), *(ctypes.c_void_p(each.data_ptr()) for each in tensors))


class _Mask(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("dropped", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("count", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    ]


def _mask(count: int, rate: float, seed: int = 0) -> _Mask:
    return _Mask(seed % 2**64, round(rate * LEVELS), 1 / (1 - rate), count, torch.get_num_threads())
