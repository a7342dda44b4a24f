"""Products of a linear layer in bf16 whose weight, and that weight's gradient, are of fp32: by `_product_code` the weight is
rounded as it is multiplied, and its gradient never; what that does not take, torch multiplies, by copies.

As operations of torch's, so that they are traced. Shape suffixes: R rows, K inputs, N outputs.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from txlplan.nn._operations import define
from txlplan.nn._product_code import has_tiles, multiply, suits_tiles

BF16 = torch.bfloat16


def linear(x_RK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """x Wᵀ + b, and what is above 0 of that where `relu`: bf16 [R, N]. `x` of bf16, weight and bias of fp32."""
    out_RN: Tensor = _OPS.linear.default(x_RK, weight_NK, bias_N, relu)
    return out_RN


def input_gradient(gradient_RN: Tensor, weight_NK: Tensor, positive_RK: Tensor | None = None) -> Tensor:
    """Of a layer's input, bf16 [R, K], given that of its output; 0 where `positive` is 0 or below."""
    of_x_RK: Tensor = _OPS.linear_input_gradient.default(gradient_RN, weight_NK, positive_RK)
    return of_x_RK


def weight_gradient(gradient_RN: Tensor, x_RK: Tensor) -> Tensor:
    """Of a layer's weight, fp32 [N, K]."""
    of_weight_NK: Tensor = _OPS.linear_weight_gradient.default(gradient_RN, x_RK)
    return of_weight_NK


def add_weight_gradient(sum_NK: Tensor, gradient_RN: Tensor, x_RK: Tensor) -> None:
    """Added to `sum`, in fp32, whose rows lie together."""
    _OPS.add_linear_weight_gradient.default(sum_NK, gradient_RN, x_RK)


def _linear(x_RK: Tensor, weight_NK: Tensor, bias_N: Tensor | None, relu: bool) -> Tensor:
    if _by_tiles(x_RK, weight_NK.t()):
        return multiply(x_RK, weight_NK.t(), _linear_like(x_RK, weight_NK), bias_N, relu=relu)
    bias = None if bias_N is None else bias_N.to(BF16)
    out_RN = torch.nn.functional.linear(x_RK, weight_NK.to(BF16), bias)
    return out_RN.relu_() if relu else out_RN


def _linear_like(x_RK: Tensor, weight_NK: Tensor, *_: Any) -> Tensor:
    return x_RK.new_empty(x_RK.shape[0], weight_NK.shape[0])


def _input_gradient(gradient_RN: Tensor, weight_NK: Tensor, positive_RK: Tensor | None) -> Tensor:
    if _by_tiles(gradient_RN, weight_NK):
        return multiply(gradient_RN, weight_NK, _input_like(gradient_RN, weight_NK), positive_MN=positive_RK)
    of_x_RK = torch.mm(gradient_RN, weight_NK.to(BF16))
    return of_x_RK if positive_RK is None else of_x_RK.masked_fill_(positive_RK <= 0, 0.0)


def _input_like(gradient_RN: Tensor, weight_NK: Tensor, *_: Any) -> Tensor:
    return gradient_RN.new_empty(gradient_RN.shape[0], weight_NK.shape[1])


def _weight_gradient(gradient_RN: Tensor, x_RK: Tensor) -> Tensor:
    if _by_tiles(gradient_RN.t(), x_RK):
        return multiply(gradient_RN.t(), x_RK, _weight_like(gradient_RN, x_RK))
    return torch.mm(gradient_RN.t(), x_RK).float()


def _weight_like(gradient_RN: Tensor, x_RK: Tensor) -> Tensor:
    return x_RK.new_empty(gradient_RN.shape[1], x_RK.shape[1], dtype=torch.float32)


def _add_weight_gradient(sum_NK: Tensor, gradient_RN: Tensor, x_RK: Tensor) -> None:
    if _by_tiles(gradient_RN.t(), x_RK):
        multiply(gradient_RN.t(), x_RK, sum_NK, sum_NK)
    else:
        sum_NK += torch.mm(gradient_RN.t(), x_RK)


def _by_tiles(left_MD: Tensor, right_DN: Tensor) -> bool:
    return _has_tiles() and suits_tiles(left_MD, right_DN)


_has_tiles = functools.cache(has_tiles)


_LIBRARY = define(
    ("linear(Tensor x, Tensor weight, Tensor? bias, bool relu) -> Tensor", _linear, _linear_like),
    (
        "linear_input_gradient(Tensor gradient, Tensor weight, Tensor? positive) -> Tensor",
        _input_gradient,
        _input_like,
    ),
    ("linear_weight_gradient(Tensor gradient, Tensor x) -> Tensor", _weight_gradient, _weight_like),
    (
        "add_linear_weight_gradient(Tensor(a!) sum, Tensor gradient, Tensor x) -> ()",
        _add_weight_gradient,
        lambda *_: None,
    ),
)
_OPS = torch.ops.txlplan
register_flop_formula(_OPS.linear)(lambda x, weight, *_, **__: 2 * x[0] * x[1] * weight[0])
register_flop_formula(_OPS.linear_input_gradient)(lambda gradient, weight, *_, **__: 2 * gradient[0] * weight[0] * weight[1])
register_flop_formula(_OPS.linear_weight_gradient)(lambda gradient, x, *_, **__: 2 * gradient[0] * gradient[1] * x[1])
register_flop_formula(_OPS.add_linear_weight_gradient)(lambda _, gradient, x, **__: 2 * gradient[0] * gradient[1] * x[1])
