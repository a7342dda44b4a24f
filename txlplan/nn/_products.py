"""Products with weights that stay as they are: cast once, and prepacked where the machine's library gains from it.

Shape suffixes: X any leading dimensions, N outputs, K inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Product:
    """x W^T + b, then a nonlinearity; in the dtype of `weight_NK`. Gradients do not flow through it."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None, *, activation: str = "none") -> None:
        self._weight_NK = weight_NK
        self._bias_N = bias_N
        self._activation = activation

    def __call__(self, x_XK: Tensor) -> Tensor:
        """[X, N] in the dtype of the weight."""
        out_XN = F.linear(x_XK.to(self._weight_NK.dtype), self._weight_NK, self._bias_N)
        if self._activation == "none":
            return out_XN
        return F.gelu(out_XN) if self._activation == "gelu" else F.relu(out_XN)


class PackedProduct:
    """The same with the weight in the layout in which oneDNN reads it fastest for so few rows; a CPU's only.

    Of a weight beyond the caches a product then takes little more than reading it once. It holds a copy of the weight.
    """

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None, *, rows: int, activation: str = "none") -> None:
        self._dtype = weight_NK.dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK, rows)
        self._bias_N = bias_N
        self._activation = activation
        self._scalars: list[float] = []
        self._algorithm = "none" if activation == "gelu" else ""

    def __call__(self, x_XK: Tensor) -> Tensor:
        """[X, N] in the dtype of the weight."""
        out_XN: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_XK.to(self._dtype), self._packed, self._bias_N, self._activation, self._scalars, self._algorithm
        )
        return out_XN


def product(
    weight_NK: Tensor, bias_N: Tensor | None = None, *, rows: int | None, activation: str = "none"
) -> Product | PackedProduct:
    """The faster of the two for `rows` rows at a time (None: many)."""
    if rows is not None and rows <= MOST_PACKED_ROWS and _is_packable(weight_NK):
        return PackedProduct(weight_NK.contiguous(), bias_N, rows=rows, activation=activation)
    return Product(weight_NK, bias_N, activation=activation)


MOST_PACKED_ROWS = 16
"""With many more rows the plain product is as fast: what is packed is read once a call, and then no longer dominates."""


def _is_packable(weight_NK: Tensor) -> bool:
    if weight_NK.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    native = weight_NK.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight_NK.dtype == torch.float32 or native
