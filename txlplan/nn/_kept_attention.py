"""Relative attention of new tokens over kept keys: nothing is projected again, and W_r R comes in ready.

Shape suffixes: B rows, H heads, T new tokens, S = filled memory slots + T keys, K width of a head, W = H·K. Products take and
give the dtype of the keys; scores are summed in it, and their softmax runs in fp32 at least.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_segment(
    q_THK: Tensor, u_HK: Tensor, v_HK: Tensor, keys_HSK: Tensor, values_HSK: Tensor, r_HSK: Tensor, mask: Tensor
) -> Tensor:
    """[T, W] of one row whose keys include the new tokens'. `r_HSK` is of the distances S - 1, …, 0.

    `mask`: [T, S], True for keys not to be seen; or what `future` gives, for those after each query. The relative shift is a
    view: element (i, j) of the aligned scores is element (i, j + T - 1 - i) of the unaligned.
    """
    tokens, keys = q_THK.shape[0], keys_HSK.shape[1]
    content_HTK, position_HTK = _queries(q_THK, u_HK, v_HK, keys_HSK.dtype)
    unaligned_HTS = torch.bmm(position_HTK, r_HSK.transpose(1, 2))
    position_HTS = unaligned_HTS.as_strided(unaligned_HTS.shape, (tokens * keys, keys - 1, 1), tokens - 1)
    scores_HTS = torch.baddbmm(position_HTS, content_HTK, keys_HSK.transpose(1, 2))
    if mask.dtype == torch.bool:
        scores_HTS.masked_fill_(mask, float("-inf"))
    else:
        scores_HTS[:, :, keys - tokens :] += mask
    probability_HTS = torch.softmax(scores_HTS, dim=-1, dtype=_wide(scores_HTS.dtype)).to(values_HSK.dtype)
    return torch.bmm(probability_HTS, values_HSK).transpose(0, 1).flatten(1)


def attend_token(
    q_BHK: Tensor, u_HK: Tensor, v_HK: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor, mask_BS: Tensor | None
) -> Tensor:
    """[B, W] of one new token a row, whose keys are the last: no shift. `mask_BS` [1 or B, S] is added to the scores."""
    content_BHK, position_BHK = _queries(q_BHK, u_HK, v_HK, keys_BHSK.dtype)
    scores_BHS = torch.matmul(content_BHK.transpose(0, 1).unsqueeze(2), keys_BHSK.transpose(2, 3)).squeeze(2)
    scores_BHS = scores_BHS + torch.bmm(position_BHK, r_HSK.transpose(1, 2)).transpose(0, 1)
    if mask_BS is not None:
        scores_BHS = scores_BHS + mask_BS.unsqueeze(1)
    probability_BHS = torch.softmax(scores_BHS, dim=-1, dtype=_wide(scores_BHS.dtype)).to(values_BHSK.dtype)
    return torch.matmul(probability_BHS.unsqueeze(2), values_BHSK).flatten(1)


def attend_token_in_place(
    q_BHK: Tensor, u_HK: Tensor, v_HK: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor, mask_BS: Tensor | None
) -> Tensor:
    """As `attend_token`, by torch's kernel for a CPU, whose bias the position scores are.

    It reads keys and values where they lie, while products of 2 bytes first copy such windows: 22 heads of 32 over 97 keys of 8
    rows take 235 us so, and 478 by products (2 cores of an Intel Xeon with AMX, torch 2.13, 2026-11-26).
    """
    content_HBK, position_HBK = _queries(q_BHK, u_HK, v_HK, keys_BHSK.dtype)
    bias_BHS = torch.bmm(position_HBK, r_HSK.transpose(1, 2)).transpose(0, 1)
    if mask_BS is not None:
        bias_BHS = bias_BHS + mask_BS.to(bias_BHS.dtype).unsqueeze(1)
    content_BH1K, bias_BH1S = content_HBK.transpose(0, 1).unsqueeze(2), bias_BHS.unsqueeze(2)
    mixed_BH1K = F.scaled_dot_product_attention(content_BH1K, keys_BHSK, values_BHSK, attn_mask=bias_BH1S, scale=1.0)
    return mixed_BH1K.flatten(1)


def attend_token_fused(
    q_BHK: Tensor, u_HK: Tensor, v_HK: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor, mask_BS: Tensor
) -> Tensor:
    """As `attend_token`, as sums for a compiler to fuse: each key, value and distance is read once; in fp32 at least."""
    wide = _wide(keys_BHSK.dtype)
    scale = q_BHK.shape[-1] ** -0.5
    content_BHK, position_BHK = ((q_BHK.to(wide) + bias_HK) * scale for bias_HK in (u_HK, v_HK))
    products_BHSK = content_BHK.unsqueeze(2) * keys_BHSK.to(wide) + position_BHK.unsqueeze(2) * r_HSK.to(wide)
    probability_BHS = torch.softmax(products_BHSK.sum(-1) + mask_BS.unsqueeze(1), dim=-1)
    return (probability_BHS.unsqueeze(-1) * values_BHSK.to(wide)).sum(2).flatten(1)


def _queries(q: Tensor, u_HK: Tensor, v_HK: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Queries with u and with v, over sqrt(K), heads first: [H, T or B, K]."""
    scale = q.shape[-1] ** -0.5
    wide = q.to(u_HK.dtype)
    content, position = (((wide + bias_HK) * scale).to(dtype).transpose(0, 1) for bias_HK in (u_HK, v_HK))
    return content, position


def future(tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[T, T], minus infinity where the key comes after the query, to be added to the scores of new keys."""
    return torch.full((tokens, tokens), float("-inf"), dtype=dtype, device=device).triu(1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
