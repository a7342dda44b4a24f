"""bf16 on CPUs for which torch has no fast products of it: they run at a ninth of fp32's rate there, 18 of 158 GFLOP/s
(`benchmarks/training.py products`, 2 cores of an AMD EPYC (Zen 3), torch 2.13, 2026-11-26).

What is given and taken stays bf16, and so does what backward keeps; each product widens its operands to fp32, in which units
for bf16 add up too. One row times one matrix is left to torch: it is bound by reading the matrix, and torch widens it as it
reads.

Shape suffixes: M rows, K inner, N columns, X any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from txlplan.nn import _wide_products
from txlplan.nn._instructions import is_told_without_bf16
from txlplan.nn._overrides import Override, overriding

_BF16 = torch.bfloat16
_PIECE_BYTES, _LEAST_PIECE = 2 << 20, 64
"""Of fp32 that is widened at a time, and rows at least: in a core's cache with what it meets. From 1 to 8 MiB products of a
training step take as long (same machine)."""


def has_fast_bf16() -> bool:
    """Whether torch has fast products of bf16 for this CPU: by instructions for bf16, x86's (with AVX-512 or AMX) or Arm's.

    With AVX-512 alone torch takes them for fast and multiplies at a fifth of fp32's rate: 71 of 375 GFLOP/s on 2 cores of an
    Intel Xeon that was told to do without the others, and 329 widened (`ONEDNN_MAX_CPU_ISA=AVX512_CORE python
    benchmarks/training.py products`, torch 2.13, 2026-11-26).
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    if is_told_without_bf16():
        return False
    return not torch.cpu._is_avx512_supported() or bool(torch.cpu._is_avx512_bf16_supported())


def widened_products() -> torch.library.Library:
    """What takes over torch's products of bf16 for as long as it is kept."""

    def rank(name: str) -> int:
        return 3 if name.startswith("b") else 2

    return overriding(
        ("mm", "bmm", "addmm", "baddbmm"),
        lambda whole, name: _widened(whole, rank(name)),
        lambda whole, into, name: _widened_into(whole, into, rank(name)),
    )


def _widened(kernel: Any, rank: int) -> Override:
    """Of operands that are to be widened the product in bf16, of others that of their own dtype. `rank`: of the factors."""

    def product(keys: Any, *operands: Tensor, **factors: float) -> Tensor:
        if not _to_widen(operands, rank):
            return _in_fp32(kernel, keys, factors)(*operands)
        return multiply(_in_fp32(kernel, keys, factors), operands, alpha=factors.get("alpha", 1.0)).to(_BF16)

    return product


def _widened_into(kernel: Any, kernel_into: Any, rank: int) -> Override:
    """The same into a tensor that is there, and may be an operand."""

    def product(keys: Any, *operands: Tensor, out: Tensor, **factors: float) -> Tensor:
        if not _to_widen(operands, rank) or out.dtype is not _BF16 or out.shape != _shape(operands):
            return kernel_into.call_boxed(keys, *operands, out=out, **factors)  # type: ignore[no-any-return]
        return out.copy_(multiply(_in_fp32(kernel, keys, factors), operands, alpha=factors.get("alpha", 1.0)))

    return product


def _in_fp32(kernel: Any, keys: Any, factors: dict[str, float]) -> Callable[..., Tensor]:
    """What multiplies what is, or has been widened to, fp32."""
    torchs = partial(kernel.call_boxed, keys, **factors)
    return torchs if factors else partial(_wide_products.multiply, torchs)


def _to_widen(operands: Sequence[Tensor], rank: int) -> bool:
    """All of bf16, and of shapes that fit; what torch refuses, it is to refuse itself. The factors come last."""
    *added, left, right = operands
    if any(each.dtype is not _BF16 for each in operands) or (left.dim(), right.dim()) != (rank, rank):
        return False
    fit = left.shape[:-2] == right.shape[:-2] and left.shape[-1] == right.shape[-2]
    return fit and left.shape[:-1] != (1,) and all(_spreads(each.shape, _shape(operands)) for each in added)


def _shape(operands: Sequence[Tensor]) -> tuple[int, ...]:
    """Of the product."""
    *_, left, right = operands
    return (*left.shape[:-1], right.shape[-1])


def _spreads(shape: Sequence[int], over: Sequence[int]) -> bool:
    """Whether a tensor of that shape can be added to one of another without making it larger."""
    pairs = zip(reversed(shape), reversed(over), strict=False)
    return len(shape) <= len(over) and all(size in (1, whole) for size, whole in pairs)


def multiply(kernel: Callable[..., Tensor], operands: Sequence[Tensor], *, alpha: float = 1.0) -> Tensor:
    """What `kernel` makes of the operands in fp32, as a new tensor of bf16 or fp32: a piece after another, so that what is
    widened stays in cache. One factor is widened whole where it is the smaller one: a weight of a layer.

    Operands: what is added (none or one), left [M, K], right [K, N], or batches of such. Whichever of M, N and K is longest is
    cut; products of pieces of K are added up in fp32. `alpha` is the kernel's own, for those.
    """
    *added, left, right = operands
    if left.dim() > 2:
        return _by_batches(kernel, added, left, right)
    (M, K), N = left.shape, right.shape[1]
    if max(M, N) < K:
        first, *others = _pieces(K, max(M, N))
        total_MN = kernel(*(each.float() for each in added), left[:, first].float(), right[first].float())
        for piece in others:
            total_MN.addmm_(left[:, piece].float(), right[piece].float(), alpha=alpha)
        return total_MN
    out_MN = left.new_empty(M, N)
    if M >= N:
        wide_KN = right.float()
        for piece in _pieces(M, max(K, N)):
            out_MN[piece] = kernel(*(_cut(each, 0, piece) for each in added), left[piece].float(), wide_KN)
    else:
        wide_MK = left.float()
        for piece in _pieces(N, max(M, K)):
            out_MN[:, piece] = kernel(*(_cut(each, 1, piece) for each in added), wide_MK, right[:, piece].float())
    return out_MN


def _by_batches(kernel: Callable[..., Tensor], added: Sequence[Tensor], left: Tensor, right: Tensor) -> Tensor:
    """A few products at a time; where all are few, at once."""
    (G, M, K), N = left.shape, right.shape[2]
    most = max(1, _PIECE_BYTES // (4 * max(M * K, K * N, M * N, 1)))
    if most >= G:
        return kernel(*(each.float() for each in added), left.float(), right.float())
    out = left.new_empty(G, M, N)
    whole = [each.expand_as(out) for each in added]
    for first in range(0, G, most):
        piece = slice(first, first + most)
        out[piece] = kernel(*(each[piece].float() for each in (*whole, left, right)))
    return out


def _cut(added_X: Tensor, dim: int, piece: slice) -> Tensor:
    """A piece of what is added to [M, N], along rows (0) or columns (1), in fp32; what counts for all of them stays whole."""
    added_MN = added_X if added_X.dim() == 2 else added_X.expand(1, added_X.shape[-1] if added_X.dim() else 1)
    return (added_MN if added_MN.shape[dim] == 1 else added_MN[(slice(None), piece) if dim else piece]).float()


def _pieces(length: int, width: int) -> list[slice]:
    """Of so many rows, each with so many elements; at least one, all but the last of a multiple of the least."""
    size = max(1, _PIECE_BYTES // (4 * max(width, 1)) // _LEAST_PIECE) * _LEAST_PIECE
    return [slice(first, min(first + size, length)) for first in range(0, max(length, 1), size)]
