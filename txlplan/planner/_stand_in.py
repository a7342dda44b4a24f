"""Which of several sizes stands for an offer: the best one, or a smaller one that the ranges cannot tell from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from txlplan.estimates import Range
from txlplan.planner._payment import Account
from txlplan.planner._probability import probability_less

if TYPE_CHECKING:
    from txlplan.planner._compare import Size, Terms

TOLD_APART = 0.8
"""Probability beyond which a larger size is told apart: that of the ranges themselves. A plan may differ for nothing, and is
told apart with less (`_choose`); twice the nodes have to be paid for, or waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """The size that is offered, and the one that it stands in for."""

    size: Size
    account: Account
    optimum: Size | None = None
    """The best by its figures, where a smaller one is offered."""
    probability: float | None = None
    """That the optimum really is better than the one offered, by their ranges."""


Rank = tuple[int, float, float, int, str]


def rank_size(size: Size, account: Account, terms: Terms) -> Rank:
    """Order of sizes: known before unknown, least first, then the faster, the smaller, and by name."""
    metric, time_s = terms.metric(account), account.time_s.value
    known, first = (0, metric.value) if metric else (1, time_s)
    return known, first, time_s, size.candidate.cluster.n_nodes, size.label


def stand_in(known: Sequence[tuple[Size, Account]], terms: Terms) -> StandIn | None:
    """Of the sizes of one offer that are in: the smallest that the ranges cannot tell from the best; None without any.

    Sizes are compared in what candidates are ranked by (in time where that is unknown), their errors shared as those of one
    stack are. A smaller one takes fewer nodes for fewer node hours, so that it costs less rent, or less of what was bought.
    """
    if not known:
        return None
    best, of_best = min(known, key=lambda entry: rank_size(entry[0], entry[1], terms))
    least = _figure(of_best, terms)

    def better(account: Account) -> float:
        return probability_less(least, _figure(account, terms), shared_error=terms.economics.shared_error)

    even = [
        (size, account)
        for size, account in known
        if _nodes(size) < _nodes(best) and _node_s(size, account) < _node_s(best, of_best) and better(account) <= TOLD_APART
    ]
    if not even:
        return StandIn(size=best, account=of_best)
    size, account = min(even, key=lambda entry: (_nodes(entry[0]), rank_size(entry[0], entry[1], terms)))
    return StandIn(size=size, account=account, optimum=best, probability=better(account))


def _figure(account: Account, terms: Terms) -> Range:
    return terms.metric(account) or account.time_s


def _nodes(size: Size) -> int:
    return size.candidate.cluster.n_nodes


def _node_s(size: Size, account: Account) -> float:
    return _nodes(size) * account.time_s.value
