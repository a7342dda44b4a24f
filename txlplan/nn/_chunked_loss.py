"""Cross-entropy over many words a few rows at a time: the logits of all rows never exist together.

Shape suffixes: N positions, n those of one chunk, E width of the words' vectors, C words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from txlplan.model._tiles import loss_rows


def chunked_cross_entropy(x_NE: Tensor, weight_CE: Tensor, bias_C: Tensor, targets_N: Tensor) -> Tensor:
    """Negative log-likelihood [N] in nats, in fp32 (fp64 for fp64 input), of the linear layer's logits.

    Keeps its inputs and one number a row; backward computes the logits of a chunk again.
    """
    kind = x_NE.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_NE.dtype
    with torch.autocast(kind, enabled=False):
        nll_N: Tensor = _Chunked.apply(x_NE.to(dtype), weight_CE.to(dtype), bias_C.to(dtype), targets_N)
    return nll_N


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NE: Tensor, weight_CE: Tensor, bias_C: Tensor, targets_N: Tensor) -> Tensor:
        wide = torch.promote_types(x_NE.dtype, torch.float32)
        total_N, nll_N = (x_NE.new_empty(len(x_NE), dtype=wide) for _ in range(2))
        for rows in _chunks(len(x_NE), len(weight_CE)):
            logits_nC = F.linear(x_NE[rows], weight_CE, bias_C).to(wide)
            torch.logsumexp(logits_nC, 1, out=total_N[rows])
            chosen_n = logits_nC.gather(1, targets_N[rows, None]).squeeze(1)
            torch.sub(total_N[rows], chosen_n, out=nll_N[rows])
        ctx.save_for_backward(x_NE, weight_CE, bias_C, targets_N, total_N)
        return nll_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_NE, weight_CE, bias_C, targets_N, total_N = ctx.saved_tensors
        dx_NE, dweight_CE, dbias_C = torch.empty_like(x_NE), torch.zeros_like(weight_CE), torch.zeros_like(bias_C)
        for rows in _chunks(len(x_NE), len(weight_CE)):
            wide_nC = F.linear(x_NE[rows], weight_CE, bias_C).to(total_N.dtype)
            wide_nC.sub_(total_N[rows, None]).exp_()
            wide_nC.scatter_add_(1, targets_N[rows, None], -torch.ones_like(total_N[rows, None]))
            logits_nC = wide_nC.mul_(gradient_N[rows, None]).to(x_NE.dtype)
            torch.mm(logits_nC, weight_CE, out=dx_NE[rows])
            torch.addmm(dweight_CE, logits_nC.t(), x_NE[rows], out=dweight_CE)
            dbias_C += logits_nC.sum(0)
        return dx_NE, dweight_CE, dbias_C, None


def _chunks(rows: int, words: int) -> Iterator[slice]:
    step = loss_rows(words)
    return (slice(first, first + step) for first in range(0, rows, step))
