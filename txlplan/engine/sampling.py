"""Drawing the next token of each row.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from txlplan.errors import RunFailedError
from txlplan.plan_file import Sampling


def penalised(log_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Log-probabilities of tokens that the row holds already, times `penalty` (Keskar et al. 2019, arXiv:1909.05858, §4.1).

    There the scores are logits of either sign; logarithms of probabilities have one, so that this always makes them rarer.
    """
    return torch.where(seen_BV, log_BV * penalty, log_BV)


def likeliest(sampling: Sampling) -> int | None:
    """How many of the likeliest tokens are enough for `choose` to choose as from all; None: all are needed.

    With a penalty all are: it may make the likeliest less likely than any other.
    """
    if sampling.repetition_penalty != 1:
        return None
    return 1 if sampling.temperature == 0 else sampling.top_k


def choose(log_BV: Tensor, sampling: Sampling, random: torch.Generator) -> Tensor:
    """One token [B] a row: the likeliest at temperature 0, else drawn at that temperature.

    Drawn from are the top_k likeliest, and of these the fewest that together have the probability top_p (Holtzman et al.
    2020, arXiv:1904.09751, §3.1): at least one. Raises RunFailedError where probabilities are not finite.
    """
    if sampling.temperature == 0:
        _require_finite(log_BV.amax(dim=-1))
        return log_BV.argmax(dim=-1)
    if sampling.top_k is not None and sampling.top_k < log_BV.shape[-1]:
        least_B1 = log_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        log_BV = log_BV.masked_fill(log_BV < least_B1, float("-inf"))
    probability_BV = torch.softmax(log_BV / sampling.temperature, dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        probability_BV = _nucleus(probability_BV, sampling.top_p)
    return drawn(probability_BV, random)


def drawn(probability_BV: Tensor, random: torch.Generator) -> Tensor:
    """One token [B] a row, each with its share of the row's sum: the first that, with those before it, exceeds a random number.

    Sums are float64, and the number is less than their last: u <= 1 - 2^-53 times a sum rounds to less than it. So a token
    of probability zero, which exceeds nothing that those before it do not, is never drawn. Raises RunFailedError where the
    sum is not finite.
    """
    sums_BV = probability_BV.cumsum(dim=-1, dtype=torch.float64)
    whole_B1 = sums_BV[:, -1:]
    _require_finite(whole_B1)
    uniform_B1 = torch.rand(whole_B1.shape, dtype=torch.float64, device=sums_BV.device, generator=random)
    return torch.searchsorted(sums_BV, uniform_B1 * whole_B1, right=True).squeeze(-1)


def _nucleus(probability_BV: Tensor, top_p: float) -> Tensor:
    """Zero for every token whose likelier ones have top_p already."""
    sorted_BV, order_BV = probability_BV.sort(dim=-1, descending=True)
    likelier_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    return probability_BV.scatter(-1, order_BV, sorted_BV.masked_fill(likelier_BV >= top_p, 0.0))


def _require_finite(of_every_row: Tensor) -> None:
    """Numbers that one of a row's probabilities makes not finite if it is not."""
    if not math.isfinite(of_every_row.sum()):
        raise RunFailedError("the model's probabilities are not finite", hint="its weights are not usable: train it again")
