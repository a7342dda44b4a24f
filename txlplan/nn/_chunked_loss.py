"""Cross-entropy over many words, a chunk of them at a time: the logits of all words never exist together.

Each word's gradient comes of one product over all positions, so that none is summed over chunks in a narrow dtype.

Shape suffixes: N positions, E width of the words' vectors, C words, c those of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def chunked_cross_entropy(x_NE: Tensor, weight_CE: Tensor, bias_C: Tensor, targets_N: Tensor, chunks: int) -> Tensor:
    """Negative log-likelihood [N] in nats, in fp32 (fp64 for fp64 input), of the linear layer's logits.

    Keeps its inputs and one number a position; backward computes the logits of a chunk again.
    """
    kind = x_NE.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_NE.dtype
    with torch.autocast(kind, enabled=False):
        nll_N: Tensor = _Chunked.apply(x_NE.to(dtype), weight_CE.to(dtype), bias_C.to(dtype), targets_N, chunks)
    return nll_N


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NE: Tensor, weight_CE: Tensor, bias_C: Tensor, targets_N: Tensor, chunks: int) -> Tensor:
        wide = torch.promote_types(x_NE.dtype, torch.float32)
        total_N = x_NE.new_full(targets_N.shape, float("-inf"), dtype=wide)
        chosen_N = x_NE.new_zeros(targets_N.shape, dtype=wide)
        for words in _chunks(len(weight_CE), chunks):
            logits_Nc = F.linear(x_NE, weight_CE[words], bias_C[words]).to(wide)
            within_N1, here_N1 = _targets_among(words, targets_N)
            chosen_N += torch.where(here_N1, logits_Nc.gather(1, within_N1), 0.0).squeeze(1)
            most_N = logits_Nc.amax(1)
            sum_N = logits_Nc.sub_(most_N[:, None]).exp_().sum(1)
            total_N = torch.logaddexp(total_N, most_N + sum_N.log())
            del logits_Nc
        ctx.chunks = chunks
        ctx.save_for_backward(x_NE, weight_CE, bias_C, targets_N, total_N)
        return total_N - chosen_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x_NE, weight_CE, bias_C, targets_N, total_N = ctx.saved_tensors
        dx_NE = torch.zeros_like(x_NE, dtype=total_N.dtype)
        dweight_CE, dbias_C = torch.empty_like(weight_CE), torch.empty_like(bias_C)
        for words in _chunks(len(weight_CE), ctx.chunks):
            wide_Nc = F.linear(x_NE, weight_CE[words], bias_C[words]).to(total_N.dtype)
            within_N1, here_N1 = _targets_among(words, targets_N)
            wide_Nc.sub_(total_N[:, None]).exp_().scatter_add_(1, within_N1, -here_N1.to(wide_Nc.dtype))
            dbias_C[words] = wide_Nc.mul_(gradient_N[:, None]).sum(0)
            logits_Nc = wide_Nc.to(x_NE.dtype)
            del wide_Nc
            torch.mm(logits_Nc.t(), x_NE, out=dweight_CE[words])
            dx_NE += torch.mm(logits_Nc, weight_CE[words])
            del logits_Nc
        return dx_NE.to(x_NE.dtype), dweight_CE, dbias_C, None, None


def _targets_among(words: slice, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Of each target its place in a chunk (any, where it is not in it), and whether it is in it: [N, 1]."""
    within_N1 = targets_N[:, None] - words.start
    here_N1 = (within_N1 >= 0) & (within_N1 < words.stop - words.start)
    return within_N1.clamp(0, words.stop - words.start - 1), here_N1


def _chunks(words: int, chunks: int) -> list[slice]:
    size = -(-words // chunks)
    return [slice(first, min(first + size, words)) for first in range(0, words, size)]
