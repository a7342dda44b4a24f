"""Drawing the next token of each row.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from txlplan.plan_file import Sampling


def penalised(log_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Log-probabilities of tokens that the row holds already, times `penalty` (Keskar et al. 2019, arXiv:1909.05858, §4.1).

    There the scores are logits of either sign; logarithms of probabilities have one, so that this always makes them rarer.
    """
    return torch.where(seen_BV, log_BV * penalty, log_BV)


def choose(log_BV: Tensor, sampling: Sampling, random: torch.Generator) -> Tensor:
    """One token [B] a row: the likeliest at temperature 0, else drawn at that temperature.

    Drawn from are the top_k likeliest, and of these the fewest that together have the probability top_p (Holtzman et al.
    2020, arXiv:1904.09751, §3.1): at least one.
    """
    if sampling.temperature == 0:
        return log_BV.argmax(dim=-1)
    if sampling.top_k is not None and sampling.top_k < log_BV.shape[-1]:
        least_B1 = log_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        log_BV = log_BV.masked_fill(log_BV < least_B1, float("-inf"))
    probability_BV = torch.softmax(log_BV / sampling.temperature, dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        probability_BV = _nucleus(probability_BV, sampling.top_p)
    return torch.multinomial(probability_BV, 1, generator=random).squeeze(-1)


def _nucleus(probability_BV: Tensor, top_p: float) -> Tensor:
    """Zero for every token whose likelier ones have top_p already."""
    sorted_BV, order_BV = probability_BV.sort(dim=-1, descending=True)
    likelier_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    return probability_BV.scatter(-1, order_BV, sorted_BV.masked_fill(likelier_BV >= top_p, 0.0))
