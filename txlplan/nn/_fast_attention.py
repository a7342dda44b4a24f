"""Relative attention as the reference computes it, without its scores ever being whole, nor queries for the memory.

Shape suffixes: B sequences, T queries (the segment), M memory slots, S = M + T keys, H heads, K width of a head, W = H·K,
D d_model, R > S rows of distances (the last ones are dummies).

Scores exist a tile at a time, in fp32 in a CPU's cache. By code of our own they are `_compiled_attention`'s, on CUDA
`_fused_attention`'s. The product for q of the segment alone and that for k and v of memory and segment are of the one weight
that the reference has.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from txlplan.model._tiles import VECTOR
from txlplan.nn._attention_dropout import DropoutOfScores
from txlplan.nn._autocast import product_dtype
from txlplan.nn._tiled_scores import TiledScores


def tiled_attention(
    x_BTD: Tensor,
    memory_BMD: Tensor,
    qkv_weight: Tensor,
    r_SHK: Tensor,
    biases: tuple[Tensor, Tensor],
    masked_keys: Tensor,
    dropatt: float,
    again: bool = False,
) -> Tensor:
    """Values [B, T, W] weighted by attention, in the precision of autocast where that is on.

    `qkv_weight` [3W, D]; `r_SHK` projected distances S - 1 … 0; `biases` u and v [H, K]; `masked_keys` [1 or B, 1, T, S].
    Scores and their gradients exist a tile at a time. Probabilities are kept for backward in the precision of products, or,
    with `again`, exist a tile at a time too and are computed twice; what dropout keeps of them is then drawn twice.
    """
    dtype = product_dtype(x_BTD)
    kept = "nothing" if not torch.is_grad_enabled() else "inputs" if again else "probabilities"
    with torch.autocast(x_BTD.device.type, enabled=False):
        mixed_BTW: Tensor = _Tiled.apply(x_BTD, memory_BMD, qkv_weight, r_SHK, *biases, masked_keys, dropatt, dtype, kept)
    return mixed_BTW


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
        dropatt: float,
        dtype: torch.dtype,
        kept: Literal["nothing", "inputs", "probabilities"],
    ) -> Tensor:
        """Weighted values [B, T, W] in `dtype`; `kept` says what is saved for backward."""
        (H, K), x, weight = u_HK.shape, x_BTD.to(dtype), qkv_weight.to(dtype)
        context_BSD = torch.cat([memory_BMD.to(dtype), x], dim=1)
        ctx.dropatt, ctx.again = dropatt, kept == "inputs"
        shape = (len(x), H, x.shape[1], context_BSD.shape[1])
        ctx.dropout = DropoutOfScores(shape, dropatt, x.device, again=ctx.again)
        keep_BHTS = ctx.dropout.draw()
        q_BHTK = F.linear(x, weight[: H * K]).unflatten(-1, (H, K)).transpose(1, 2)
        kv_2BHSK = F.linear(context_BSD, weight[H * K :]).unflatten(-1, (2, H, K)).permute(2, 0, 3, 1, 4)
        scores = TiledScores(
            q_BHTK=q_BHTK.contiguous(),
            kv_2BHSK=kv_2BHSK.contiguous(),
            r_HRK=_with_dummies(r_SHK, dtype),
            u_HK=u_HK,
            v_HK=v_HK,
            keep_BHTS=keep_BHTS,
            kept_scale=1 / (1 - dropatt),
        )
        del q_BHTK, kv_2BHSK
        mixed_BHTK, probabilities = scores.mix(masked_keys, keep_probabilities=kept == "probabilities")
        to_go_on = (masked_keys,) if ctx.again else (keep_BHTS, *probabilities)
        ctx.save_for_backward(x, context_BSD, weight, scores.q_BHTK, scores.kv_2BHSK, scores.r_HRK, u_HK, v_HK, *to_go_on)
        ctx.dtypes = (x_BTD.dtype, memory_BMD.dtype, qkv_weight.dtype, r_SHK.dtype)
        return mixed_BHTK.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, mixed_BTW: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the first six inputs, given that of the weighted values; of the memory only where it is wanted."""
        x, context_BSD, weight, q_BHTK, kv_2BHSK, r_HRK, u_HK, v_HK, mask_or_keep, *probabilities = ctx.saved_tensors
        keep_BHTS = ctx.dropout.draw_again() if ctx.again else mask_or_keep
        scores = TiledScores(
            q_BHTK=q_BHTK,
            kv_2BHSK=kv_2BHSK,
            r_HRK=r_HRK,
            u_HK=u_HK,
            v_HK=v_HK,
            keep_BHTS=keep_BHTS,
            kept_scale=1 / (1 - ctx.dropatt),
        )
        known = mask_or_keep if ctx.again else probabilities
        (B, H, _, K), S = q_BHTK.shape, kv_2BHSK.shape[3]
        found = scores.gradients(mixed_BTW.unflatten(-1, (H, K)).transpose(1, 2), known)
        q_BTW, kv_BSV = found.q_BHTK.transpose(1, 2).flatten(2), found.kv_2BHSK.permute(1, 3, 0, 2, 4).reshape(B, S, -1)
        r_SHK, of_biases = found.r_HRK[:, :S].transpose(0, 1), (found.u_HK, found.v_HK)
        del found
        W, memory_wanted = q_BTW.shape[-1], ctx.needs_input_grad[1]
        weight_VD = torch.empty_like(weight)
        torch.mm(q_BTW.flatten(0, 1).t(), x.flatten(0, 1), out=weight_VD[:W])
        torch.mm(kv_BSV.flatten(0, 1).t(), context_BSD.flatten(0, 1), out=weight_VD[W:])
        M = context_BSD.shape[1] - x.shape[1]
        x_BTD = torch.mm(q_BTW.flatten(0, 1), weight[:W]).view_as(x)
        for sequence, kv_SV in zip(x_BTD, kv_BSV, strict=True):
            torch.addmm(sequence, kv_SV[M:], weight[W:], out=sequence)
        memory_BMD = context_BSD.new_empty(len(x), M, x.shape[-1]) if memory_wanted else None
        if memory_BMD is not None:
            for memory_MD, kv_SV in zip(memory_BMD, kv_BSV, strict=True):
                torch.mm(kv_SV[:M], weight[W:], out=memory_MD)
        dtypes = ctx.dtypes
        return (
            x_BTD.to(dtypes[0]),
            None if memory_BMD is None else memory_BMD.to(dtypes[1]),
            weight_VD.to(dtypes[2]),
            r_SHK.to(dtypes[3]),
            *of_biases,
            *(None,) * 4,
        )


def _with_dummies(r_SHK: Tensor, dtype: torch.dtype) -> Tensor:
    """Distances by head with rows of zeros at the end, [H, R, K]."""
    S, H, K = r_SHK.shape
    r_HRK = r_SHK.new_empty(H, S + VECTOR, K, dtype=dtype)
    r_HRK[:, :S] = r_SHK.transpose(0, 1)
    r_HRK[:, S:] = 0
    return r_HRK
