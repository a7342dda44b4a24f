"""Products of bf16 by compiled code of our own, `product_bf16.cpp`, on CPUs with AMX. Those of a layer's training step take
torch 1.08 to 1.64 times as long (`benchmarks/training.py shapes`, 2 cores of an Intel Xeon, torch 2.13, 2026-11-27).

Shape suffixes: M rows, D depth, N columns.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from txlplan.nn._instructions import may_use_tiles
from txlplan.nn._overrides import Override, overriding
from txlplan.nn._own_code import can_compile, library

_LEAST = 64
"""Rows, columns and depth: of fewer, more is packed than multiplied."""
_LEAST_PRODUCTS = 1 << 21
"""Multiplications: fewer take less than a call costs."""


def tile_products() -> torch.library.Library | None:
    """What takes over torch's products of bf16 for as long as it is kept; None where this CPU has no AMX, or it is told not to
    use it, or there is no compiler."""
    return overriding(("mm", "addmm"), _override, _into) if has_tiles() else None


def has_tiles() -> bool:
    """Whether there is code for this CPU."""
    return may_use_tiles() and can_compile("product_bf16") and bool(library("product_bf16").has_products())


def _override(kernel: Any, _name: str) -> Override:
    def product(keys: Any, *operands: Tensor, **factors: float) -> Tensor:
        if factors or not _suit(operands):
            return kernel.call_boxed(keys, *operands, **factors)  # type: ignore[no-any-return]
        *added, left_MD, right_DN = operands
        return multiply(left_MD, right_DN, left_MD.new_empty(left_MD.shape[0], right_DN.shape[1]), *added)

    return product


def _into(_kernel: Any, kernel_into: Any, _name: str) -> Override:
    def product(keys: Any, *operands: Tensor, out: Tensor, **factors: float) -> Tensor:
        if factors or not _suit(operands) or not _takes(out, operands):
            return kernel_into.call_boxed(keys, *operands, out=out, **factors)  # type: ignore[no-any-return]
        *added, left_MD, right_DN = operands
        return multiply(left_MD, right_DN, out, *added)

    return product


def multiply(
    left_MD: Tensor,
    right_DN: Tensor,
    out_MN: Tensor,
    added: Tensor | None = None,
    *,
    relu: bool = False,
    positive_MN: Tensor | None = None,
) -> Tensor:
    """`out_MN`, which is the product and what is `added`, [N] or [1 or M, N], and may be `out_MN` itself.

    `relu`: what is above 0 of that. Where `positive_MN`, of bf16, is 0 or below, a result of bf16 is 0.

    All of bf16, the right factor, what is added and the result also of fp32; of which elements of a row lie together, or, of
    factors, of a column.
    """
    (M, D), N = left_MD.shape, right_DN.shape[1]
    added_row = added.stride(0) if added is not None and added.dim() == 2 and added.shape[0] > 1 else 0
    product = _Product(
        left_MD.data_ptr(),
        right_DN.data_ptr(),
        None if added is None else added.data_ptr(),
        out_MN.data_ptr(),
        None if positive_MN is None else positive_MN.data_ptr(),
        *_strides(left_MD),
        *_strides(right_DN),
        added_row,
        out_MN.stride(0),
        0 if positive_MN is None else positive_MN.stride(0),
        M,
        N,
        D,
        torch.get_num_threads(),
        *(each is not None and each.dtype == torch.float32 for each in (right_DN, added, out_MN)),
        relu,
    )
    assert left_MD.dtype == torch.bfloat16
    assert all(each is None or each.dtype in (torch.bfloat16, torch.float32) for each in (right_DN, added, out_MN))
    library("product_bf16").multiply(ctypes.byref(product))
    return out_MN


def _suit(operands: tuple[Tensor, ...]) -> bool:
    """All of bf16, and of shapes that fit; what torch refuses, it is to refuse itself. The factors come last."""
    *added, left_MD, right_DN = operands
    if left_MD.dtype is not torch.bfloat16 or left_MD.dim() != 2 or right_DN.dim() != 2 or right_DN.dtype is not torch.bfloat16:
        return False
    M, N = left_MD.shape[0], right_DN.shape[1]
    return suits_tiles(left_MD, right_DN) and all(_is_added(each, M, N) for each in added)


def suits_tiles(left_MD: Tensor, right_DN: Tensor) -> bool:
    """Whether a product is large enough, and lies so."""
    (M, D), (depth, N) = left_MD.shape, right_DN.shape
    large = depth == D and min(M, N, D) >= _LEAST and M * N * D >= _LEAST_PRODUCTS
    return large and _lies_in_lines(left_MD) and _lies_in_lines(right_DN)


def _lies_in_lines(factor: Tensor) -> bool:
    return 1 in factor.stride()


def _is_added(added: Tensor, M: int, N: int) -> bool:
    return added.dtype is torch.bfloat16 and added.shape in ((N,), (1, N), (M, N)) and added.stride(-1) == 1


def _takes(out_MN: Tensor, operands: tuple[Tensor, ...]) -> bool:
    """Whether the product can be written there: not over a factor, nor over what is added but in its own place."""
    *added, left_MD, right_DN = operands
    M, N = left_MD.shape[0], right_DN.shape[1]
    if out_MN.dtype is not torch.bfloat16 or out_MN.shape != (M, N) or out_MN.stride(1) != 1 or out_MN.stride(0) < N:
        return False
    own = out_MN.untyped_storage().data_ptr()
    elsewhere = [each for each in added if not _is_same(each, out_MN)]
    return all(each.untyped_storage().data_ptr() != own for each in (left_MD, right_DN, *elsewhere))


def _is_same(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.shape, a.stride()) == (b.data_ptr(), b.shape, b.stride())


def _strides(factor: Tensor) -> tuple[int, int]:
    """Rows and columns apart, one of which is 1."""
    row, column = factor.stride()
    return (row, column) if column == 1 else (1, column)


class _Product(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("left", "right", "added", "out", "positive")),
        *((name, ctypes.c_int64) for name in ("left_row", "left_column", "right_row", "right_column")),
        *((name, ctypes.c_int64) for name in ("added_row", "out_row", "positive_row")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "depth", "threads")),
        *((name, ctypes.c_bool) for name in ("right_is_wide", "added_is_wide", "out_is_wide", "relu")),
    ]
