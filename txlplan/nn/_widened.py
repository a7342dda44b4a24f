"""bf16 on CPUs without units for it, where torch's products run at a tenth of fp32's rate, and attention's small ones at less.

What is given and taken stays bf16, and so does what backward keeps; each product widens its operands to fp32, in which units
for bf16 add up too. One row times a matrix is left to torch: it is bound by reading the matrix, which it widens as it reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

_OPERATIONS = ("mm", "bmm", "addmm", "baddbmm")
_PIECE_BYTES, _LEAST_ROWS = 2 << 20, 64
_in_force: list[torch.library.Library] = []
"""At most one; torch takes back what it registered when it goes."""


def has_bf16_units() -> bool:
    """Whether torch has fast products of bf16 on this CPU."""
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


def suit_products(precision: str) -> None:
    """Set up this process's products on the CPU for a precision, from one call to the next: those of bf16 are widened where it
    is bf16 and the CPU has no units for it, also autograd's and autocast's. All others are torch's own.
    """
    wanted = precision == "bf16" and not has_bf16_units()
    if wanted and not _in_force:
        _in_force.append(_overriding())
    elif not wanted:
        _in_force.clear()


def _overriding() -> torch.library.Library:
    """torch's own kernels are looked up before they are overridden."""
    library = torch.library.Library("aten", "IMPL")
    overrides: dict[str, Callable[..., Tensor]] = {}
    for name in _OPERATIONS:
        whole, into = (torch.library.get_kernel(f"aten::{name}{overload}", "CPU") for overload in ("", ".out"))
        overrides |= {name: _widened(whole), f"{name}.out": _widened_into(whole, into)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*other operators may also be overridden", category=UserWarning)
        for name, override in overrides.items():
            library.impl(name, override, "CPU", with_keyset=True, allow_override=True)
    return library


def _to_widen(operands: Sequence[Tensor]) -> bool:
    """Factors come last."""
    left = operands[-2]
    return left.dtype is torch.bfloat16 and left.shape[:-1] != (1,)


def _widened(kernel: Any) -> Callable[..., Tensor]:
    """A new tensor: of bf16 if its operands are."""

    def product(keys: Any, *operands: Tensor, **factors: float) -> Tensor:
        if not _to_widen(operands):
            return kernel.call_boxed(keys, *operands, **factors)  # type: ignore[no-any-return]
        left, right = operands[-2:]
        out = left.new_empty(*left.shape[:-1], right.shape[-1])
        return _multiply(partial(kernel.call_boxed, keys, **factors), operands, out, factors.get("alpha", 1.0))

    return product


def _widened_into(kernel: Any, kernel_into: Any) -> Callable[..., Tensor]:
    """The same into a tensor that is there."""

    def product(keys: Any, *operands: Tensor, out: Tensor, **factors: float) -> Tensor:
        if not _to_widen(operands):
            return kernel_into.call_boxed(keys, *operands, out=out, **factors)  # type: ignore[no-any-return]
        return _multiply(partial(kernel.call_boxed, keys, **factors), operands, out, factors.get("alpha", 1.0))

    return product


def _multiply(kernel: Callable[..., Tensor], operands: Sequence[Tensor], out: Tensor, alpha: float) -> Tensor:
    """Of two matrices a piece after another, so that what is widened stays in cache and is little: rows of the left one, or,
    where the rows of the right one are more, those, whose products are added up in fp32."""
    *added, left, right = operands
    if left.dim() > 2:
        return out.copy_(kernel(*(each.float() for each in operands)))
    rows, inner, columns = *left.shape, right.shape[1]
    if rows >= inner:
        wide = right.float()
        for piece in _pieces(rows, max(inner, columns)):
            mine = (each.expand_as(out)[piece].float() for each in added)
            out[piece] = kernel(*mine, left[piece].float(), wide)
        return out
    first, *others = _pieces(inner, max(rows, columns))
    total = kernel(*(each.float() for each in added), left[:, first].float(), right[first].float())
    for piece in others:
        total.addmm_(left[:, piece].float(), right[piece].float(), alpha=alpha)
    return out.copy_(total)


def _pieces(length: int, width: int) -> list[slice]:
    """Of so many rows, each with so many elements; at least one."""
    size = max(_LEAST_ROWS, _PIECE_BYTES // (4 * max(width, 1)))
    return [slice(first, min(first + size, length)) for first in range(0, max(length, 1), size)]
