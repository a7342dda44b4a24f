"""Linear layers, and two with a relu between them, that train in bf16 on a CPU by code of our own (`_linear_code`): copies of
weights, or of their gradients, are not kept.

Shape suffixes: X any leading dimensions, R all of them, K inputs, F inner states, N outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from txlplan.nn._autocast import product_dtype
from txlplan.nn._linear_code import BF16, input_gradient, linear, weight_gradient


class Linear(nn.Linear):
    """As torch's; by code of our own where `compiled`, and there is some for what it is given."""

    compiled = False

    def forward(self, x: Tensor) -> Tensor:
        """[X, K] to [X, N]."""
        if not self.is_ours(x):
            return super().forward(x)
        out: Tensor = _Linear.apply(x.to(BF16), self.weight, self.bias)
        return out

    def is_ours(self, x: Tensor) -> bool:
        """Whether the product is by code of our own: in bf16 on a CPU, by a weight of fp32."""
        wide = self.weight.dtype == torch.float32
        return self.compiled and wide and x.device.type == "cpu" and product_dtype(x) == BF16


def relu_between(x: Tensor, inner: Linear, outer: Linear) -> Tensor:
    """outer(relu(inner(x))), [X, K] to [X, N], of layers that have biases, and for both of which there is code."""
    out: Tensor = _ReluBetween.apply(x.to(BF16), inner.weight, inner.bias, outer.weight, outer.bias)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        rows_RK = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows_RK, weight_NK)
        ctx.shape = x.shape
        return linear(rows_RK, weight_NK, bias_N).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of input, weight and bias, those that are wanted."""
        rows_RK, weight_NK = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        gradient_RN = gradient.reshape(-1, gradient.shape[-1])
        return (
            input_gradient(gradient_RN, weight_NK).view(ctx.shape) if of_x else None,
            weight_gradient(gradient_RN, rows_RK) if of_weight else None,
            _sum(gradient_RN) if of_bias else None,
        )


class _ReluBetween(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inner_FK: Tensor, inner_bias: Tensor, outer_NF: Tensor, outer_bias: Tensor) -> Tensor:
        rows_RK = x.reshape(-1, x.shape[-1])
        inner_RF = linear(rows_RK, inner_FK, inner_bias, relu=True)
        ctx.save_for_backward(rows_RK, inner_RF, inner_FK, outer_NF)
        ctx.shape = x.shape
        return linear(inner_RF, outer_NF, outer_bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of the input, and of weight and bias of each layer, those that are wanted."""
        rows_RK, inner_RF, inner_FK, outer_NF = ctx.saved_tensors
        of_x, of_inner, of_inner_bias, of_outer, of_outer_bias = ctx.needs_input_grad
        gradient_RN = gradient.reshape(-1, gradient.shape[-1])
        of_inner_RF = input_gradient(gradient_RN, outer_NF, inner_RF)
        outer = weight_gradient(gradient_RN, inner_RF) if of_outer else None, _sum(gradient_RN) if of_outer_bias else None
        return (
            input_gradient(of_inner_RF, inner_FK).view(ctx.shape) if of_x else None,
            weight_gradient(of_inner_RF, rows_RK) if of_inner else None,
            _sum(of_inner_RF) if of_inner_bias else None,
            *outer,
        )


def _sum(gradient_RN: Tensor) -> Tensor:
    """Gradient of a bias, [N]."""
    return gradient_RN.sum(0).float()
