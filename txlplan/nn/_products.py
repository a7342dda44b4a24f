"""Products with weights that stay as they are: cast once, and laid out for how few rows they meet.

Shape suffixes: X any leading dimensions, B rows, G blocks, N outputs, K inputs.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.model._tiles import FEW_ROWS, packed_rows
from txlplan.nn._widened import has_fast_bf16


class Product(Protocol):
    """x W^T + b and a nonlinearity, in the dtype of the weight at least. Gradients do not flow through it."""

    def __call__(self, x_XK: Tensor) -> Tensor:
        """[X, K] of any float dtype to [X, N]."""


def product(
    weight_NK: Tensor,
    bias_N: Tensor | None = None,
    *,
    rows: int | None = None,
    activation: str = "none",
    compiled: bool = False,
) -> Product:
    """The fastest for `rows` rows at a time; None: for many. `compiled`: one that torch.compile takes with any weight.

    A compiled product is never packed: the compiler takes a packed weight as a constant of its code only, and one code serves
    all layers.
    """
    if rows is None or weight_NK.device.type != "cpu":
        return PlainProduct(weight_NK, bias_N, activation=activation)
    if compiled and weight_NK.dtype == torch.bfloat16 and not has_fast_bf16():
        return WidenedProduct(weight_NK, bias_N, activation=activation)
    if not compiled and _is_packed(weight_NK, rows):
        return PackedProduct(weight_NK, bias_N, rows=rows, activation=activation)
    if rows <= FEW_ROWS and weight_NK.dtype == torch.float32 and torch.get_num_threads() > 1:
        return BlockedProduct(weight_NK, bias_N, activation=activation, blocks=torch.get_num_threads())
    return PlainProduct(weight_NK, bias_N, activation=activation)


def _is_packed(weight_NK: Tensor, rows: int) -> bool:
    """In bf16 where torch is fast in it, and in fp32 where that is by AVX-512 or AMX."""
    narrow, wide = weight_NK.dtype == torch.bfloat16, weight_NK.dtype == torch.float32
    units = has_fast_bf16() and (narrow or (wide and torch.cpu._is_avx512_supported()))
    return units and rows in packed_rows(weight_NK.numel(), narrow=narrow)


class PlainProduct:
    """What torch makes of a linear layer."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None, *, activation: str = "none") -> None:
        self._weight_NK, self._bias_N, self._activation = weight_NK, bias_N, activation

    def __call__(self, x_XK: Tensor) -> Tensor:
        """[X, N]."""
        return _activated(F.linear(x_XK.to(self._weight_NK.dtype), self._weight_NK, self._bias_N), self._activation)


class WidenedProduct:
    """The same in fp32, whose weight is widened anew each time: for compiled code, which computes few rows by itself."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None, *, activation: str = "none") -> None:
        self._weight_NK, self._bias_N, self._activation = weight_NK, bias_N, activation

    def __call__(self, x_XK: Tensor) -> Tensor:
        """[X, N], in fp32."""
        bias_N = None if self._bias_N is None else self._bias_N.float()
        return _activated(F.linear(x_XK.float(), self._weight_NK.float(), bias_N), self._activation)


class BlockedProduct:
    """The same of two-dimensional inputs, one block of outputs a thread.

    For few rows torch's own product leaves threads idle while it is bound by reading the weight. A weight whose outputs
    are no multiple of the blocks is copied with rows of zeros.
    """

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None, *, activation: str = "none", blocks: int) -> None:
        self._outputs = weight_NK.shape[0]
        missing = -self._outputs % blocks
        padded_NK = F.pad(weight_NK, (0, 0, 0, missing)) if missing else weight_NK.contiguous()
        self._weight_GKN = padded_NK.view(blocks, -1, padded_NK.shape[1]).transpose(1, 2)
        self._bias_N, self._activation = bias_N, activation

    def __call__(self, x_BK: Tensor) -> Tensor:
        """[B, N]."""
        blocks = self._weight_GKN.shape[0]
        out_GBN = torch.bmm(x_BK.to(self._weight_GKN.dtype).expand(blocks, *x_BK.shape), self._weight_GKN)
        out_BN = out_GBN.transpose(0, 1).flatten(1)[:, : self._outputs]
        return _activated(out_BN if self._bias_N is None else out_BN + self._bias_N, self._activation)


class PackedProduct:
    """The same in the layout in which oneDNN reads the weight fastest. Holds a copy of it."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None, *, activation: str = "none", rows: int) -> None:
        self._dtype = weight_NK.dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK.contiguous(), rows)
        self._bias_N, self._activation = bias_N, activation
        self._algorithm = "none" if activation == "gelu" else ""

    def __call__(self, x_XK: Tensor) -> Tensor:
        """[X, N]."""
        out_XN: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_XK.to(self._dtype), self._packed, self._bias_N, self._activation, [], self._algorithm
        )
        return out_XN


def _activated(out_XN: Tensor, activation: str) -> Tensor:
    if activation == "none":
        return out_XN
    return F.gelu(out_XN) if activation == "gelu" else F.relu(out_XN, inplace=True)
