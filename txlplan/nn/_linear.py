"""Linear layers, and two with a relu between them, that train in bf16 on a CPU by code of our own (`_linear_code`): there is no
copy of a weight, nor of its gradient.

Shape suffixes: X any leading dimensions, R all of them, K inputs, F inner states, N outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from txlplan.nn._autocast import product_dtype
from txlplan.nn._linear_code import BF16, input_gradient, linear, weight_gradient
from txlplan.nn._norm_code import add_norm


class Linear(nn.Linear):
    """As torch's; by code of our own where `compiled`, and there is some for what it is given."""

    compiled = False

    def forward(self, x: Tensor) -> Tensor:
        """[X, K] to [X, N]."""
        if not (self.compiled and is_ours(x)):
            return super().forward(x)
        out: Tensor = _Linear.apply(x.to(BF16), self.weight, self.bias)
        return out


Hidden = tuple[Tensor, Tensor]
"""What goes into a layer or comes out, [B, T, D], and the same as products take it where that is made at once; else itself."""


class Residual(nn.LayerNorm):
    """The norm of a residual; the sum with it by code of our own where `compiled`, and there is some."""

    compiled = False

    def normed_sum(self, x: Tensor, y: Tensor) -> Hidden:
        """Of what went in, and what came out."""
        if self.compiled and x.dtype == torch.float32 and y.dtype == BF16 and x.device.type == "cpu":
            return add_norm(x, y, self.weight, self.bias, self.eps)
        out = self(x + y)
        return out, out


def is_ours(x: Tensor) -> bool:
    """Whether products of `x` are in bf16 on a CPU."""
    return x.device.type == "cpu" and product_dtype(x) == BF16


def relu_between(x: Tensor, inner: Linear, outer: Linear) -> Tensor:
    """outer(relu(inner(x))), [X, K] to [X, N], where `is_ours`."""
    out: Tensor = _ReluBetween.apply(x.to(BF16), inner.weight, inner.bias, outer.weight, outer.bias)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        rows_RK = x.flatten(0, -2)
        ctx.save_for_backward(rows_RK, weight_NK)
        ctx.shape = x.shape
        return linear(rows_RK, weight_NK, bias_N).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows_RK, weight_NK = ctx.saved_tensors
        gradient_RN = gradient.flatten(0, -2)
        of_x = input_gradient(gradient_RN, weight_NK).view(ctx.shape) if ctx.needs_input_grad[0] else None
        of_weight_NK = weight_gradient(gradient_RN, rows_RK)
        return of_x, of_weight_NK, _sum(gradient_RN) if ctx.needs_input_grad[2] else None


class _ReluBetween(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inner_FK: Tensor, inner_bias: Tensor, outer_NF: Tensor, outer_bias: Tensor) -> Tensor:
        rows_RK = x.flatten(0, -2)
        inner_RF = linear(rows_RK, inner_FK, inner_bias, relu=True)
        ctx.save_for_backward(rows_RK, inner_RF, inner_FK, outer_NF)
        ctx.shape = x.shape
        return linear(inner_RF, outer_NF, outer_bias).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        rows_RK, inner_RF, inner_FK, outer_NF = ctx.saved_tensors
        gradient_RN = gradient.flatten(0, -2)
        of_inner_RF = input_gradient(gradient_RN, outer_NF, inner_RF)
        of_outer, of_outer_bias = weight_gradient(gradient_RN, inner_RF), _sum(gradient_RN)
        of_x = input_gradient(of_inner_RF, inner_FK).view(ctx.shape)
        return of_x, weight_gradient(of_inner_RF, rows_RK), _sum(of_inner_RF), of_outer, of_outer_bias


def _sum(gradient_RN: Tensor) -> Tensor:
    """Gradient of a bias, [N]."""
    return gradient_RN.sum(0).float()
