"""Relative attention on CUDA: torch's fused kernels mix the values, with the position scores as their bias.

Shape suffixes: B sequences, T queries (the segment), M memory slots, S = M + T keys, H heads, K width of a head, D d_model,
R >= S + 1 rows of distances (those beyond S are zero, so that rows of scores begin where vectors do), N = B·T.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from txlplan.model._tiles import distance_rows, padded_keys, padded_width
from txlplan.nn._autocast import product_dtype


def fused_attention(
    x_BTD: Tensor,
    memory_BMD: Tensor,
    qkv_weight: Tensor,
    r_SHK: Tensor,
    biases: tuple[Tensor, Tensor],
    masked_keys: Tensor,
    dropatt: float,
    again: bool = False,
) -> Tensor:
    """As `tiled_attention`, by torch's scaled_dot_product_attention; shifted position scores are its bias [B, H, T, S]."""
    (H, K), (B, T, D) = biases[0].shape, x_BTD.shape
    dtype = product_dtype(x_BTD)
    with torch.autocast(x_BTD.device.type, enabled=False):
        x_BTD = x_BTD.to(dtype)
        context_BSD: Tensor = _Joined.apply(memory_BMD, x_BTD)
        weight = _padded(qkv_weight.to(dtype).view(3 * H, K, D), dim=1)
        width = weight.shape[1]
        # in one operation: its gradient is put together once
        query_WD, key_value_VD = weight.view(-1, D).split([H * width, 2 * H * width])
        q_BTHK = F.linear(x_BTD, query_WD).view(B, T, H, width)
        k_BSHK, v_BSHK = F.linear(context_BSD, key_value_VD).view(B, -1, 2, H, width).unbind(2)
        arguments = (q_BTHK, k_BSHK, v_BSHK, r_SHK, biases, masked_keys, dropatt)
        mixed_BTHK: Tensor = checkpoint(fused_scores, *arguments, use_reentrant=False) if again else fused_scores(*arguments)
    return mixed_BTHK.flatten(2)


def fused_scores(
    q_BTHK: Tensor,
    k_BSHK: Tensor,
    v_BSHK: Tensor,
    r_SHK: Tensor,
    biases: tuple[Tensor, Tensor],
    masked_keys: Tensor,
    dropatt: float,
) -> Tensor:
    """Values [B, T, H, K] weighted by attention of queries without their biases.

    q, k and v of a head may have zeros beyond the K that biases and distances have, which is what scores are scaled by.
    """
    (B, T, H, width), S, K, dtype = q_BTHK.shape, k_BSHK.shape[1], biases[0].shape[1], k_BSHK.dtype
    if width % 8:
        q_BTHK, k_BSHK, v_BSHK = (_padded(each, dim=3) for each in (q_BTHK, k_BSHK, v_BSHK))
        width = q_BTHK.shape[3]
    content_BTHK, position_BTHK = (q_BTHK + _padded(bias.to(dtype), dim=1) for bias in biases)
    distances_RHK = F.pad((r_SHK * K**-0.5).to(dtype), (0, width - K, 0, 0, 0, distance_rows(S) - S))
    position_HNR = torch.bmm(position_BTHK.view(B * T, H, width).transpose(0, 1), distances_RHK.permute(1, 2, 0))
    bias_BHTS: Tensor = _Bias.apply(position_HNR, masked_keys, B, S)
    mixed_BHTK = F.scaled_dot_product_attention(
        content_BTHK.transpose(1, 2),
        k_BSHK.transpose(1, 2),
        v_BSHK.transpose(1, 2),
        attn_mask=bias_BHTS,
        dropout_p=dropatt,
        scale=K**-0.5,
    )
    return mixed_BHTK.transpose(1, 2)[..., :K]


def _padded(x: Tensor, *, dim: int) -> Tensor:
    """Zeros added to a head's width, which is dimension `dim`."""
    missing = padded_width(x.shape[dim]) - x.shape[dim]
    return F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, missing)) if missing else x


class _Joined(torch.autograd.Function):
    """Memory, then segment, in the dtype of the segment: written once."""

    @staticmethod
    def forward(ctx: Any, memory_BMD: Tensor, x_BTD: Tensor) -> Tensor:
        B, M, D = memory_BMD.shape
        ctx.slots, ctx.memory_dtype = M, memory_BMD.dtype
        context_BSD = x_BTD.new_empty(B, M + x_BTD.shape[1], D)
        context_BSD[:, :M] = memory_BMD
        context_BSD[:, M:] = x_BTD
        return context_BSD

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, context_BSD: Tensor) -> tuple[Tensor | None, Tensor]:
        memory_BMD = context_BSD[:, : ctx.slots].to(ctx.memory_dtype) if ctx.needs_input_grad[0] else None
        return memory_BMD, context_BSD[:, ctx.slots :]


class _Bias(torch.autograd.Function):
    """Position scores [H, N, R], shifted and masked, as a bias [B, H, T, S] whose rows begin where the kernels ask it.

    Column j of row i is the score of distance S - T + i - j: in rows of R - 1 elements from the (T - 1)th on, row i begins one
    distance later than row i - 1. Where keys are masked, probabilities are zero, and so are the gradients that come back.
    """

    @staticmethod
    def forward(ctx: Any, position_HNR: Tensor, masked_keys: Tensor, sequences: int, keys: int) -> Tensor:
        H, N, R = position_HNR.shape
        ctx.shape, T = (H, N, R), N // sequences
        shifted_BHTS = position_HNR.as_strided(*_view(sequences, T, R, keys, H), T - 1)
        padded = position_HNR.new_empty(H, sequences, T, padded_keys(keys)).transpose(0, 1)
        bias_BHTS = padded[..., :keys]
        torch.where(masked_keys, _negative_infinity(position_HNR), shifted_BHTS, out=bias_BHTS)
        return bias_BHTS

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient_BHTS: Tensor) -> tuple[Tensor, None, None, None]:
        (H, N, R), (B, _, T, S) = ctx.shape, gradient_BHTS.shape
        position_HNR = gradient_BHTS.new_zeros(H, N, R)
        position_HNR.as_strided(*_view(B, T, R, S, H), T - 1).copy_(gradient_BHTS)
        return position_HNR, None, None, None


def _view(sequences: int, queries: int, rows: int, keys: int, heads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Size and strides of the shifted scores within [H, N, R]."""
    one = queries * rows
    return (sequences, heads, queries, keys), (one, sequences * one, rows - 1, 1)


def _negative_infinity(like: Tensor) -> Tensor:
    return torch.full((), float("-inf"), dtype=like.dtype, device=like.device)
