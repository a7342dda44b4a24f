"""Relative attention of training whose scores are computed by code of our own (`_attention_code`), on a CPU.

Shape suffixes: B sequences, T queries (the segment), M memory slots, S = M + T keys, H heads, K width of a head, W = H·K,
D d_model.

Keys and values of the memory are a product of their own: nothing joins memory and segment.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from txlplan.nn._attention_code import CompiledScores
from txlplan.nn._autocast import product_dtype
from txlplan.nn._dropout_code import compiled_mask, new_seed
from txlplan.nn._linear_code import BF16, add_weight_gradient, input_gradient, linear, weight_gradient


def compiled_attention(
    x_BTD: Tensor,
    memory_BMD: Tensor,
    qkv_weight: Tensor,
    r_SHK: Tensor,
    biases: tuple[Tensor, Tensor],
    masked_keys: Tensor,
    dropatt: float,
    again: bool = False,
) -> Tensor:
    """As `tiled_attention`."""
    dtype = product_dtype(x_BTD)
    x_BTD, memory_BMD, r_SHK = (each.to(dtype) for each in (x_BTD, memory_BMD, r_SHK))
    if qkv_weight.dtype != torch.float32:
        qkv_weight = qkv_weight.to(dtype)
    with torch.autocast(x_BTD.device.type, enabled=False):
        mixed_BTW: Tensor = _Compiled.apply(
            x_BTD, memory_BMD, qkv_weight, r_SHK, *biases, masked_keys, dropatt, torch.is_grad_enabled(), again
        )
    return mixed_BTW


class _Compiled(torch.autograd.Function):
    """Products for q, k and v, and attention, with their backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        memory_BMD: Tensor,
        qkv_weight: Tensor,
        r_SHK: Tensor,
        u_HK: Tensor,
        v_HK: Tensor,
        masked_keys: Tensor,
        dropatt: float,
        keeps: bool,
        again: bool,
    ) -> Tensor:
        """Weighted values [B, T, W] of inputs of one dtype; whether what backward wants is kept, or computed `again`."""
        (H, K), W = u_HK.shape, u_HK.numel()
        shape_BHTS = (len(x_BTD), H, x_BTD.shape[1], masked_keys.shape[-1])
        ctx.draw = partial(compiled_mask, shape_BHTS, new_seed(), dropatt) if dropatt else lambda: None
        qkv_BT3HK = _linear(x_BTD, qkv_weight).unflatten(-1, (3, H, K))
        kv_BM2HK = _linear(memory_BMD, qkv_weight[W:]).unflatten(-1, (2, H, K))
        scores = _scores(qkv_BT3HK, kv_BM2HK, r_SHK, u_HK, v_HK, ctx.draw(), dropatt)
        mixed_BTHK, kept = scores.mix(masked_keys, keep_probabilities=keeps and not again)
        known = masked_keys if again else kept
        ctx.save_for_backward(x_BTD, memory_BMD, qkv_weight, qkv_BT3HK, kv_BM2HK, r_SHK, u_HK, v_HK, known)
        ctx.dropatt = dropatt
        return mixed_BTHK.flatten(2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, mixed_BTW: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the first six inputs, given that of the weighted values; of the memory only where it is wanted."""
        x, memory, weight, qkv_BT3HK, kv_BM2HK, r_SHK, u_HK, v_HK, known = ctx.saved_tensors
        scores = _scores(qkv_BT3HK, kv_BM2HK, r_SHK, u_HK, v_HK, ctx.draw(), ctx.dropatt)
        found = scores.gradients(mixed_BTW.unflatten(-1, u_HK.shape), known)
        qkv_NV, kv_NV = found.qkv_BT3HK.flatten(0, 1).flatten(1), found.kv_BM2HK.flatten(0, 1).flatten(1)
        W = u_HK.numel()
        x_BTD = _input_gradient(qkv_NV, weight).view_as(x)
        memory_BMD = _input_gradient(kv_NV, weight[W:]).view_as(memory) if ctx.needs_input_grad[1] else None
        weight_VD = _weight_gradient(qkv_NV, x, kv_NV, memory)
        return x_BTD, memory_BMD, weight_VD, found.r_SHK, found.u_HK, found.v_HK, *(None,) * 4


def _linear(x: Tensor, weight_NK: Tensor) -> Tensor:
    if x.dtype != BF16:
        return F.linear(x, weight_NK)
    return linear(x.flatten(0, 1), weight_NK).unflatten(0, x.shape[:2])


def _input_gradient(gradient_RN: Tensor, weight_NK: Tensor) -> Tensor:
    return input_gradient(gradient_RN, weight_NK) if gradient_RN.dtype == BF16 else torch.mm(gradient_RN, weight_NK)


def _weight_gradient(qkv_NV: Tensor, x: Tensor, kv_NV: Tensor, memory: Tensor) -> Tensor:
    x_ND, memory_ND, W = x.flatten(0, 1), memory.flatten(0, 1), qkv_NV.shape[1] - kv_NV.shape[1]
    if x.dtype == BF16:
        weight_VD = weight_gradient(qkv_NV, x_ND)
        add_weight_gradient(weight_VD[W:], kv_NV, memory_ND)
    else:
        weight_VD = torch.mm(qkv_NV.t(), x_ND)
        torch.addmm(weight_VD[W:], kv_NV.t(), memory_ND, out=weight_VD[W:])
    return weight_VD


def _scores(
    qkv_BT3HK: Tensor, kv_BM2HK: Tensor, r_SHK: Tensor, u_HK: Tensor, v_HK: Tensor, keep_BHTS: Tensor | None, dropatt: float
) -> CompiledScores:
    k_BMHK, v_BMHK = kv_BM2HK.unbind(2)
    return CompiledScores(
        qkv_BT3HK=qkv_BT3HK,
        k_BMHK=k_BMHK,
        v_BMHK=v_BMHK,
        r_SHK=r_SHK,
        u_HK=u_HK,
        v_HK=v_HK,
        keep_BHTS=keep_BHTS,
        kept_scale=1 / (1 - dropatt),
    )
