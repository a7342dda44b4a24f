"""Relative distances: sinusoidal embeddings, the shift that aligns them, and which keys a query may see.

Shape suffixes: B sequences, H heads, T queries, S keys (memory, then segment), D d_model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sinusoids(keys: int, width: int, clamp_len: int | None, like: Tensor) -> Tensor:
    """Embeddings [S, D] of the distances S-1, …, 1, 0 (Dai et al. 2019, §3.3; sines first, then cosines).

    Distances beyond `clamp_len` use its embedding. Computed in fp32 at least, returned in the dtype of `like`.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    distance_S = torch.arange(keys - 1, -1, -1, device=like.device, dtype=wide)
    if clamp_len is not None:
        distance_S = distance_S.clamp(max=clamp_len)
    exponent = torch.arange(0, width, 2, device=like.device, dtype=wide) / width
    angle_SD = distance_S.unsqueeze(1) / torch.pow(10_000.0, exponent)
    return torch.cat([angle_SD.sin(), angle_SD.cos()], dim=1).to(like.dtype)


def relative_shift(scores_BHTS: Tensor) -> Tensor:
    """Shift row i left by T - 1 - i, so that column j holds the score of distance S - T + i - j (Dai et al. 2019, app. B).

    Column c of the input holds distance S - 1 - c. One column of padding and a reshape move every row by one more than
    the last; what wraps around lies beyond the query (j > S - T + i) and is masked.
    """
    B, H, T, S = scores_BHTS.shape
    padded = F.pad(scores_BHTS, (1, 0)).view(B, H, T * (S + 1))
    return padded[:, :, T:].view(B, H, T, S)


def key_mask(queries: int, mem_len: int, valid_length: Tensor, window: int | None) -> Tensor:
    """Mask, True where query i may not see key j: [1 or B, 1, T, S].

    Masked are keys after the query, keys `window` or more before it, and the oldest slots of a memory of which only
    `valid_length` ([] or [B]) are filled.
    """
    device = valid_length.device
    key_S = torch.arange(mem_len + queries, device=device)
    distance_TS = torch.arange(mem_len, mem_len + queries, device=device).unsqueeze(1) - key_S
    masked_TS = distance_TS < 0
    if window is not None:
        masked_TS = masked_TS | (distance_TS >= window)
    unfilled_B11S = key_S < mem_len - valid_length.reshape(-1, 1, 1, 1)
    return masked_TS | unfilled_B11S
