"""Which of several sizes is the best, and the smaller one that the ranges cannot tell from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from txlplan.estimates import Range
from txlplan.planner._payment import Account
from txlplan.planner._probability import Shares, probability_less

if TYPE_CHECKING:
    from txlplan.planner._compare import Size, Terms

TOLD_APART = 0.8
"""Probability beyond which a larger size is told apart: that of the ranges themselves. A plan may differ for nothing, and is
told apart with less (`_choose`); twice the nodes have to be paid for, or waited for."""

Entry = tuple["Size", Account]
"""A size that is in, and its account."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """A smaller size that may be taken for the best one."""

    size: Size
    account: Account
    probability: float
    """That the best really is better, by their ranges."""


Rank = tuple[int, float, float, int, str]


def rank_size(size: Size, account: Account, terms: Terms) -> Rank:
    """Order of sizes: known before unknown before unpriced, least first, then the faster, the smaller, and by name."""
    metric, time_s = terms.metric(account), account.time_s.value
    known, first = (0, metric.value) if metric else (2 if terms.lacks_price(account) else 1, time_s)
    return known, first, time_s, size.candidate.cluster.n_nodes, size.label


def best_size(known: Sequence[Entry], terms: Terms) -> Entry | None:
    """Of the sizes of an offer that are in, the best by its figures; None without any."""
    return min(known, key=lambda entry: rank_size(entry[0], entry[1], terms), default=None)


def stand_in(known: Sequence[Entry], best: Entry, terms: Terms) -> StandIn | None:
    """The smallest size that the ranges cannot tell from the best; None where that is the smallest itself.

    Sizes are compared in what candidates are ranked by (in time where that is unknown), their errors shared as those of one
    device are. A smaller one takes fewer nodes for fewer node hours, so that it costs less rent, or less of what was bought.
    """
    least, shares = _figure(best[1], terms), Shares.of(terms.economics)

    def better(entry: Entry) -> float:
        common = shares.common(best[0].origin, entry[0].origin)
        return probability_less(least, _figure(entry[1], terms), shared_error=common)

    even = [
        entry
        for entry in known
        if _nodes(entry) < _nodes(best) and _node_s(entry) < _node_s(best) and better(entry) <= TOLD_APART
    ]
    if not even:
        return None
    smallest = min(even, key=lambda entry: (_nodes(entry), rank_size(entry[0], entry[1], terms)))
    return StandIn(size=smallest[0], account=smallest[1], probability=better(smallest))


def _figure(account: Account, terms: Terms) -> Range:
    return terms.metric(account) or account.time_s


def _nodes(entry: Entry) -> int:
    return entry[0].candidate.cluster.n_nodes


def _node_s(entry: Entry) -> float:
    return _nodes(entry) * entry[1].time_s.value
