"""Products of fp32 with many columns on AMD's CPUs without AVX-512, for which MKL, torch's own, is slow: oneDNN's there.

Of random sizes where these take over oneDNN took 0.75 of MKL's time for products as of a linear layer, and 0.80 and 0.86 as of
the gradients of its input and weight (medians of 45, 24 and 14, `benchmarks/cpu_products.py wide --count 300`, 2 cores of an
AMD EPYC (Zen 3), torch 2.13, 2026-11-28). oneDNN makes code for every number of rows that it meets, half to two megabytes of
it, and keeps it: products whose rows vary from call to call stay torch's.

Shape suffixes: M rows, K inner, N columns, X any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from txlplan.nn._instructions import is_amd, may_use_avx2
from txlplan.nn._overrides import Override, overriding

_LEAST_ROWS = 32
_LEAST_COLUMNS, _LEAST_EVEN_COLUMNS = 1024, 1792
"""Where they are no multiple of `_EVEN`; and where they are, and both factors lie as those of a linear layer do."""
_EVEN = 8
"""Columns that fill vectors of AVX2."""
_varying = False
"""Of the thread that computes: torch's backward is in the same one on a CPU."""


@cache
def has_wide_products() -> bool:
    """Whether this CPU is one of those. Zen 3 is the one that was measured; those before it have the same instructions."""
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return libraries and is_amd() and may_use_avx2() and not torch.cpu._is_avx512_supported()


@contextmanager
def rows_vary() -> Iterator[None]:
    """Products have another number of rows each time meanwhile; in backward, those between `entered` and `left`."""
    global _varying
    _varying = True
    try:
        yield
    finally:
        _varying = False  # also where a backward ended between two turns


def entered(x_X: Tensor) -> Tensor:
    """The same: what is computed from it is of rows that vary, and so is what its gradient comes from."""
    return _turned(x_X, False) if _turns(x_X) else x_X


def left(x_X: Tensor, entered_X: Tensor) -> Tensor:
    """The same, where what was computed from what `entered` ends: in backward, where that is turned back again, it begins."""
    return _turned(x_X, True) if _turns(entered_X) else x_X


def _turns(entered_X: Tensor) -> bool:
    return entered_X.requires_grad and entered_X.device.type == "cpu" and has_wide_products()


def _turned(x_X: Tensor, varying: bool) -> Tensor:
    turned_X: Tensor = _Turn.apply(x_X, varying)
    return turned_X


class _Turn(torch.autograd.Function):
    """Says, in backward, whether rows vary from there on. Backward takes what was computed last first, and so what lies between
    two turns, and nothing else, between them."""

    @staticmethod
    def forward(ctx: Any, x_X: Tensor, varying: bool) -> Tensor:
        ctx.varying = varying
        return x_X.view_as(x_X)

    @staticmethod
    def backward(ctx: Any, gradient_X: Tensor) -> tuple[Tensor, None]:
        global _varying
        _varying = ctx.varying
        return gradient_X, None


def wide_products() -> torch.library.Library | None:
    """What takes over such products for as long as it is kept; None on other CPUs."""
    return overriding(("mm", "addmm"), _override) if has_wide_products() else None


def _override(kernel: Any, _name: str) -> Override:
    def product(keys: Any, *operands: Tensor, **factors: float) -> Tensor:
        torchs = partial(kernel.call_boxed, keys, **factors)
        return torchs(*operands) if factors else multiply(torchs, *operands)  # type: ignore[no-any-return]

    return product


def multiply(torchs: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """oneDNN's product where that takes less time here, else `torchs`. What is added, none or one, and the factors."""
    if not _suit(operands):
        return torchs(*operands)
    *added, left_MK, right_KN = operands
    bias_N = added[0].view(-1) if added else None
    out_MN: Tensor = torch.ops.mkldnn._linear_pointwise(left_MK, right_KN.t(), bias_N, "none", [], "")
    return out_MN


def _suit(operands: tuple[Tensor, ...]) -> bool:
    """All of fp32, of shapes that fit, wide, and of lines without gaps; what torch refuses, it is to refuse itself. The factors
    come last."""
    *added, left_MK, right_KN = operands
    if _varying or (left_MK.dim(), right_KN.dim()) != (2, 2) or right_KN.shape[1] < _LEAST_COLUMNS:
        return False
    (M, K), (depth, N) = left_MK.shape, right_KN.shape
    as_linear = left_MK.stride(1) == 1 and right_KN.stride() == (1, K)
    if not is_wide(M, N, as_linear=as_linear) or not 0 < K == depth or not has_wide_products():
        return False
    lies = right_KN.stride() in ((N, 1), (1, K)) and left_MK.stride() in ((K, 1), (1, M))
    fits = all(each.shape in ((N,), (1, N)) and each.is_contiguous() for each in added)
    return lies and fits and all(each.dtype is torch.float32 for each in operands)


def is_wide(rows: int, columns: int, *, as_linear: bool) -> bool:
    """Whether oneDNN is the faster one. `as_linear`: both factors have the elements that are summed beside each other."""
    if rows < _LEAST_ROWS:
        return False
    if columns % _EVEN:
        return columns >= _LEAST_COLUMNS
    return as_linear and columns >= _LEAST_EVEN_COLUMNS
