"""A residual in fp32, normed, by compiled code of our own, `norm.cpp`: in one pass each way.

As operations of torch's, so that they are traced. Shape suffixes: R rows, D their width.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from txlplan.nn._operations import define
from txlplan.nn._own_code import library

BF16 = torch.bfloat16


def add_norm(x: Tensor, y: Tensor, weight_D: Tensor, bias_D: Tensor, slight: float) -> tuple[Tensor, Tensor]:
    """Layer norm of x + y, of fp32 and bf16, in both; `slight` is added to the variance."""
    wide, narrow = _AddNorm.apply(x.contiguous(), y.contiguous(), weight_D, bias_D, slight)
    return wide, narrow


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weight_D: Tensor, bias_D: Tensor, slight: float) -> tuple[Tensor, Tensor]:
        total, out, narrow, statistics_R2 = _OPS.add_norm.default(x, y, weight_D, bias_D, slight)
        ctx.save_for_backward(total, statistics_R2, weight_D)
        ctx.set_materialize_grads(False)
        return out, narrow

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, of_out: Tensor | None, of_narrow: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the first four inputs, given that of the result in either precision, or in both."""
        gradients = (None if each is None else each.contiguous() for each in (of_out, of_narrow))
        return *_OPS.add_norm_backward.default(*gradients, *ctx.saved_tensors), None


def _add_norm(x: Tensor, y: Tensor, weight_D: Tensor, bias_D: Tensor, slight: float) -> tuple[Tensor, ...]:
    made = _like(x, y)
    _call("add_norm", x, slight, x, y, weight_D, bias_D, *made)
    return made


def _like(x: Tensor, y: Tensor, *_: Any) -> tuple[Tensor, ...]:
    """Sum, its norm in both precisions, and mean and inverse standard deviation of rows."""
    return torch.empty_like(x), torch.empty_like(x), torch.empty_like(y), x.new_empty(x.numel() // x.shape[-1], 2)


def _add_norm_backward(
    of_out: Tensor | None, of_narrow: Tensor | None, total: Tensor, statistics_R2: Tensor, weight_D: Tensor
) -> tuple[Tensor, ...]:
    made = _backward_like(of_out, of_narrow, total, statistics_R2, weight_D)
    _call("add_norm_backward", total, 0.0, of_out, of_narrow, total, statistics_R2, weight_D, *made)
    return made


def _backward_like(_out: Any, _narrow: Any, total: Tensor, _statistics: Any, weight_D: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the summands, of weight and of bias."""
    narrow = torch.empty_like(total, dtype=BF16)
    return torch.empty_like(total), narrow, torch.empty_like(weight_D), torch.empty_like(weight_D)


_FOUR = "(Tensor, Tensor, Tensor, Tensor)"
_GIVEN = "Tensor? of_out, Tensor? of_narrow, Tensor total, Tensor statistics, Tensor weight"
_LIBRARY = define(
    (f"add_norm(Tensor x, Tensor y, Tensor weight, Tensor bias, float slight) -> {_FOUR}", _add_norm, _like),
    (f"add_norm_backward({_GIVEN}) -> {_FOUR}", _add_norm_backward, _backward_like),
)
_OPS = torch.ops.txlplan


def _call(name: str, like: Tensor, slight: float, *tensors: Tensor | None) -> None:
    assert all(each is None or (each.is_contiguous() and each.dtype in (torch.float32, BF16)) for each in tensors)
    width = like.shape[-1]
    rows = _Rows(like.numel() // width, width, torch.get_num_threads(), slight)
    pointers = (ctypes.c_void_p(None if each is None else each.data_ptr()) for each in tensors)
    getattr(library("norm"), name)(ctypes.byref(rows), *pointers)


class _Rows(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in ("count", "width", "threads")), ("slight", ctypes.c_float)]
