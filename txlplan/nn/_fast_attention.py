"""Relative attention as the reference computes it, without its scores ever being whole, nor queries for the memory.

Shape suffixes: B sequences, T queries (the segment), M memory slots, S = M + T keys, H heads, K width of a head, W = H·K,
D d_model, R = S + 1 rows of distances (the last is a dummy).

On a CPU a tile of scores at a time stays in cache (`tiled_attention`); on CUDA the fused kernels of torch mix the values,
with the position scores as their bias (`fused_attention`). Both take the product for q of the segment alone and the one for
k and v of memory and segment from the one weight that the reference has.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from txlplan.nn._dropout import keep_mask
from txlplan.nn._tile import shifted
from txlplan.nn._tiled_scores import TiledScores


def tiled_attention(
    x_BTD: Tensor,
    memory_BMD: Tensor,
    qkv_weight: Tensor,
    r_SHK: Tensor,
    biases: tuple[Tensor, Tensor],
    masked_keys: Tensor,
    dropatt: float,
) -> Tensor:
    """Values [B, T, W] weighted by attention, in the precision of autocast where that is on.

    `qkv_weight` [3W, D]; `r_SHK` projected distances S - 1 … 0; `biases` u and v [H, K]; `masked_keys` [1 or B, 1, T, S].
    Probabilities are kept for backward in the precision of products; scores and their gradients exist a tile at a time.
    """
    kind, (S, H, _), (B, T, _) = x_BTD.device.type, r_SHK.shape, x_BTD.shape
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_BTD.dtype
    keep_BHTS = keep_mask((B, H, T, S), dropatt, x_BTD.device) if dropatt else None
    dropped = (keep_BHTS, 1 / (1 - dropatt))
    with torch.autocast(kind, enabled=False):
        mixed_BTW: Tensor = _Tiled.apply(
            x_BTD, memory_BMD, qkv_weight, r_SHK, *biases, masked_keys, *dropped, dtype, torch.is_grad_enabled()
        )
    return mixed_BTW


def fused_attention(
    x_BTD: Tensor,
    memory_BMD: Tensor,
    qkv_weight: Tensor,
    r_SHK: Tensor,
    biases: tuple[Tensor, Tensor],
    masked_keys: Tensor,
    dropatt: float,
) -> Tensor:
    """As `tiled_attention`, by torch's scaled_dot_product_attention; shifted position scores are its bias [B, H, T, S]."""
    (H, K), (B, T, _), W = biases[0].shape, x_BTD.shape, biases[0].numel()
    q_BTHK = F.linear(x_BTD, qkv_weight[:W]).view(B, T, H, K)
    context_BSD = torch.cat([memory_BMD.to(x_BTD.dtype), x_BTD], dim=1)
    k_BSHK, v_BSHK = F.linear(context_BSD, qkv_weight[W:]).view(B, -1, 2, H, K).unbind(2)
    content_BHTK, position_BHTK = ((q_BTHK + bias).to(k_BSHK.dtype).transpose(1, 2) for bias in biases)
    distances_RHK = F.pad(r_SHK.to(k_BSHK.dtype), (0, 0, 0, 0, 0, 1))
    position_BHTR = (position_BHTK * K**-0.5) @ distances_RHK.permute(1, 2, 0)
    bias_BHTS = shifted(position_BHTR.flatten(0, 1)).unflatten(0, (B, H)).masked_fill(masked_keys, float("-inf"))
    mixed_BHTK = F.scaled_dot_product_attention(
        content_BHTK, k_BSHK.transpose(1, 2), v_BSHK.transpose(1, 2), attn_mask=bias_BHTS, dropout_p=dropatt
    )
    return mixed_BHTK.transpose(1, 2).flatten(2)


class _Tiled(torch.autograd.Function):
    """Products for q, k and v, and attention tile by tile, with a backward that goes over the same tiles."""

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
        keep_BHTS: Tensor | None,
        kept_scale: float,
        dtype: torch.dtype,
        training: bool,
    ) -> Tensor:
        (H, K), x, weight = u_HK.shape, x_BTD.to(dtype), qkv_weight.to(dtype)
        context_BSD = torch.cat([memory_BMD.to(dtype), x], dim=1)
        scores = TiledScores(
            q_BTHK=F.linear(x, weight[: H * K]).unflatten(-1, (H, K)),
            kv_BS2HK=F.linear(context_BSD, weight[H * K :]).unflatten(-1, (2, H, K)),
            r_HRK=_with_dummy(r_SHK, dtype),
            u_HK=u_HK,
            v_HK=v_HK,
            keep_BHTS=keep_BHTS,
            kept_scale=kept_scale,
        )
        mixed_BTHK, probabilities = scores.mix(masked_keys, keep_probabilities=training)
        ctx.save_for_backward(
            x, context_BSD, weight, scores.q_BTHK, scores.kv_BS2HK, scores.r_HRK, u_HK, v_HK, keep_BHTS, *probabilities
        )
        ctx.kept_scale = kept_scale
        ctx.dtypes = (x_BTD.dtype, memory_BMD.dtype, qkv_weight.dtype, r_SHK.dtype)
        return mixed_BTHK.flatten(2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, mixed_BTW: Tensor) -> tuple[Tensor | None, ...]:
        x, context_BSD, weight, q_BTHK, kv_BS2HK, r_HRK, u_HK, v_HK, keep_BHTS, *probabilities = ctx.saved_tensors
        scores = TiledScores(
            q_BTHK=q_BTHK,
            kv_BS2HK=kv_BS2HK,
            r_HRK=r_HRK,
            u_HK=u_HK,
            v_HK=v_HK,
            keep_BHTS=keep_BHTS,
            kept_scale=ctx.kept_scale,
        )
        found = scores.gradients(mixed_BTW.view(q_BTHK.shape), probabilities)
        q_BTW, kv_BSV = found.q_BTHK.flatten(2), found.kv_BS2HK.flatten(2)
        W, memory_wanted = q_BTW.shape[-1], ctx.needs_input_grad[1]
        weight_VD = torch.empty_like(weight)
        torch.mm(q_BTW.flatten(0, 1).t(), x.flatten(0, 1), out=weight_VD[:W])
        torch.mm(kv_BSV.flatten(0, 1).t(), context_BSD.flatten(0, 1), out=weight_VD[W:])
        M = context_BSD.shape[1] - x.shape[1]
        x_BTD = torch.mm(q_BTW.flatten(0, 1), weight[:W]).view_as(x)
        for sequence, kv_SV in zip(x_BTD, kv_BSV, strict=True):
            torch.addmm(sequence, kv_SV[M:], weight[W:], out=sequence)
        memory_BMD = kv_BSV[:, :M] @ weight[W:] if memory_wanted else None
        r_SHK = found.r_HRK[:, :-1].transpose(0, 1)
        dtypes = ctx.dtypes
        return (
            x_BTD.to(dtypes[0]),
            None if memory_BMD is None else memory_BMD.to(dtypes[1]),
            weight_VD.to(dtypes[2]),
            r_SHK.to(dtypes[3]),
            found.u_HK,
            found.v_HK,
            *(None,) * 5,
        )


def _with_dummy(r_SHK: Tensor, dtype: torch.dtype) -> Tensor:
    """Distances by head with a row of zeros at the end, [H, R, K]."""
    S, H, K = r_SHK.shape
    r_HRK = r_SHK.new_empty(H, S + 1, K, dtype=dtype)
    r_HRK[:, :S] = r_SHK.transpose(0, 1)
    r_HRK[:, S] = 0
    return r_HRK
