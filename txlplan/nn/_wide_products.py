"""Products of fp32 with many columns on AMD's CPUs without AVX-512, for which MKL, torch's own, is slow: oneDNN's there.

Of random sizes where these take over oneDNN took 0.80 of MKL's time for products as of a linear layer, and 0.77 and 0.89 as of
the gradients of its input and weight (medians of 45, 24 and 14, `benchmarks/cpu_products.py wide --count 300`, 2 cores of an
AMD EPYC (Zen 3), torch 2.13, 2026-11-28). oneDNN makes code for every number of rows that it meets, half
to two megabytes of it, and keeps it: products whose rows vary from call to call stay torch's.

Shape suffixes: M rows, K inner, N columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from txlplan.nn._instructions import is_amd
from txlplan.nn._overrides import Override, overriding

_LEAST_ROWS = 32
_ODD_COLUMNS, _COLUMNS = 1024, 1792
"""Columns at least: where they are no multiple of a line of vectors, and where they are and both factors lie as those of a
linear layer do."""
_ALIGNED = 8
_varying = False


@cache
def has_wide_products() -> bool:
    """Whether this CPU is one of those."""
    return is_amd() and not torch.cpu._is_avx512_supported() and torch.backends.mkldnn.is_available()


@contextmanager
def rows_vary() -> Iterator[None]:
    """Products of now have another number of rows each time."""
    global _varying
    before, _varying = _varying, True
    try:
        yield
    finally:
        _varying = before


def wide_products() -> torch.library.Library | None:
    """What takes over such products for as long as it is kept; None on other CPUs."""
    return overriding(("mm", "addmm"), _override, _into) if has_wide_products() else None


def multiply(torchs: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """oneDNN's product where that takes less time here, else `torchs`. What is added, none or one, and the factors."""
    if not _suit(operands):
        return torchs(*operands)
    *added, left_MK, right_KN = operands
    out_MN: Tensor = torch.ops.mkldnn._linear_pointwise(left_MK, right_KN.t(), added[0] if added else None, "none", [], "")
    return out_MN


def _override(kernel: Any, _name: str) -> Override:
    def product(keys: Any, *operands: Tensor, **factors: float) -> Tensor:
        torchs = partial(kernel.call_boxed, keys, **factors)
        return torchs(*operands) if factors else multiply(torchs, *operands)  # type: ignore[no-any-return]

    return product


def _into(_kernel: Any, kernel_into: Any, _name: str) -> Override:
    """Into a tensor that is there: torch's own, as oneDNN's is not lent for that."""

    def product(keys: Any, *operands: Tensor, out: Tensor, **factors: float) -> Tensor:
        return kernel_into.call_boxed(keys, *operands, out=out, **factors)  # type: ignore[no-any-return]

    return product


def _suit(operands: tuple[Tensor, ...]) -> bool:
    """All of fp32, of shapes that fit, and wide; what torch refuses, it is to refuse itself. The factors come last."""
    *added, left_MK, right_KN = operands
    if right_KN.shape[-1] < _ODD_COLUMNS or _varying or not has_wide_products() or (left_MK.dim(), right_KN.dim()) != (2, 2):
        return False
    (M, K), (depth, N) = left_MK.shape, right_KN.shape
    as_linear = left_MK.stride(1) == 1 and right_KN.stride(0) == 1
    if any(each.dtype is not torch.float32 for each in operands) or not is_wide(M, N, as_linear=as_linear):
        return False
    return 0 < K == depth and all(each.shape == (N,) and each.is_contiguous() for each in added)


def is_wide(rows: int, columns: int, *, as_linear: bool) -> bool:
    """Whether oneDNN is the faster one. `as_linear`: both factors have the elements that are summed beside each other."""
    least = _ODD_COLUMNS if columns % _ALIGNED else _COLUMNS if as_linear else columns + 1
    return rows >= _LEAST_ROWS and columns >= least
