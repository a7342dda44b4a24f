"""What goes through the layers: residuals, and their norms, by code of our own where there is some (`_norm_code`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from txlplan.nn._norm_code import BF16, add_norm

Hidden = tuple[Tensor, Tensor]
"""What goes into a layer or comes out, [B, T, D], and the same as products take it where that is made at once; else itself."""


class Residual(nn.LayerNorm):
    """The norm of a residual; the sum with it by code of our own where `compiled`, and there is some."""

    compiled = False

    def normed_sum(self, x: Tensor, y: Tensor) -> Hidden:
        """Of what went in, and what came out."""
        wide = x.dtype == self.weight.dtype == torch.float32
        if self.compiled and wide and y.dtype == BF16 and x.device.type == "cpu":
            return add_norm(x, y, self.weight, self.bias, self.eps)
        out = self(x + y)
        return out, out


def summed(x_BTD: Tensor, y_BTD: Tensor, norm: Residual | None) -> Hidden:
    """What went into a layer and what came out, normed where there is a norm."""
    if norm is not None:
        return norm.normed_sum(x_BTD, y_BTD)
    out_BTD = x_BTD + y_BTD
    return out_BTD, out_BTD
