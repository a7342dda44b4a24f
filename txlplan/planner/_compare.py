"""Which hardware for a workload: the best plan on each candidate, ranked by time, cost or energy."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from txlplan.choices import Objective
from txlplan.errors import InputError, TxlplanError
from txlplan.estimates import Range
from txlplan.hardware import Economics
from txlplan.hardware import economics as economics_catalog
from txlplan.planner._duration import Planned, planned
from txlplan.planner._known import Known, known_by_size
from txlplan.planner._limits import beyond_limits, refusal
from txlplan.planner._offer import Offer
from txlplan.planner._payment import Account, Pay, accounts, chosen
from txlplan.planner._resolve import Candidate
from txlplan.planner._space import Space
from txlplan.planner._stand_in import Rank, rank_size, stand_in
from txlplan.workload import Workload

RankBy = Literal["time", "cost", "energy"]
_OBJECTIVES: dict[RankBy, Objective] = {"time": "fastest", "cost": "cheapest", "energy": "least-energy"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How candidates are compared."""

    rank_by: RankBy = "time"
    pay: Pay = "auto"
    economics: Economics
    today: datetime.date
    """Against which the age of prices is counted."""

    @classmethod
    def default(cls, *, rank_by: RankBy = "time", pay: Pay = "auto") -> Terms:
        """The shipped (or the user's own) assumptions, today."""
        return cls(rank_by=rank_by, pay=pay, economics=economics_catalog.get("default"), today=datetime.date.today())

    def metric(self, account: Account) -> Range | None:
        """What candidates are ranked by; None where it is unknown."""
        return {"time": account.time_s, "cost": account.cost_usd, "energy": account.energy_j}[self.rank_by]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One cluster of an offer, with its best plan: or why it has none."""

    candidate: Candidate
    label: str
    planned: Planned | None = None
    accounts: tuple[Account, ...] = ()
    """By every way to pay whose price is known."""
    account: Account | None = None
    """In the way that is asked for."""
    tried: tuple[Account, ...] = ()
    """The same of every plan that was held against deadline and budget."""
    efficiency: float | None = None
    """Tokens per second of each device that the plan occupies, over those of the offer's first size that has a plan."""
    reason: str = ""
    """Why it is out: no plan, or beyond deadline or budget."""

    @property
    def tokens_per_s(self) -> Range | None:
        """Predicted throughput, None without a plan."""
        return self.planned.choice.estimate.tokens_per_s if self.planned else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One candidate of a comparison."""

    offer: Offer
    sizes: tuple[Size, ...]
    best: Size | None
    """The size that stands for it; None where every one is out."""
    optimum: Size | None = None
    """The best size by its figures, where a smaller one that the ranges cannot tell from it is offered."""
    optimum_probability: float | None = None
    """That this one really is better than the size offered."""
    on_front: bool = False
    """No other candidate is as good in time, cost and energy, and better in one."""

    @property
    def label(self) -> str:
        """Of the size that stands for it, or of the whole offer."""
        return self.best.label if self.best else self.offer.label

    @property
    def account(self) -> Account:
        """Of the size that stands for it. Only for rows that have one."""
        assert self.best is not None
        assert self.best.account is not None
        return self.best.account

    @property
    def reason(self) -> str:
        """Why it is out; empty where it is in."""
        return "" if self.best else "; ".join(dict.fromkeys(size.reason for size in self.sizes))


def rows_of(workload: Workload, offers: Sequence[Offer], terms: Terms, space: Space | None) -> list[Row]:
    """Every offer planned and ranked, the best first; what is out comes last.

    Raises InputError without offers or tokens, NoPlanFitsError when nothing is left.
    """
    if not offers:
        raise InputError("nothing to compare", hint="name systems, e.g. --on dgx-1,dgx-a100-40gb")
    if workload.tokens is None:
        raise InputError("a comparison needs the number of tokens", hint="state it with --tokens, e.g. --tokens 1.8e9")
    rows = sorted((_row(workload, offer, terms, space) for offer in offers), key=lambda row: _rank(row, terms))
    if rows[0].best is None:
        raise refusal(workload, [size for row in rows for size in row.sizes])
    return _with_front(rows)


def _rank(row: Row, terms: Terms) -> Rank:
    return rank_size(row.best, row.account, terms) if row.best else (2, 0.0, 0.0, 0, row.label)


def _row(workload: Workload, offer: Offer, terms: Terms, space: Space | None) -> Row:
    known = known_by_size(workload, offer, space or Space())
    sizes = [_size(workload, offer, candidate, terms, own) for candidate, own in zip(offer.sizes, known, strict=True)]
    sizes = _with_efficiency(sizes)
    offered = stand_in([(size, size.account) for size in sizes if size.account and not size.reason], terms)
    if offered is None:
        return Row(offer=offer, sizes=tuple(sizes), best=None)
    return Row(
        offer=offer,
        sizes=tuple(sizes),
        best=offered.size,
        optimum=offered.optimum,
        optimum_probability=offered.probability,
    )


def _size(workload: Workload, offer: Offer, candidate: Candidate, terms: Terms, known: Known) -> Size:
    """The plan of one cluster, as `plan` offers it: a simpler one where the ranges cannot tell and no limit could be missed.

    Where it misses a limit, the fastest and the cheapest are tried. Limits count all time.
    """
    bare = Size(candidate=candidate, label=offer.label_of(candidate))
    wanted = _objective(candidate, terms)
    free = workload.deadline_s is None and workload.budget_usd is None
    tried: tuple[Account, ...] = ()
    found = bare
    others: tuple[Objective, ...] = ("fastest", "cheapest") if _rented(candidate) else ("fastest",)
    for objective in dict.fromkeys((wanted, *others)):
        unlimited = replace(workload, objective=objective, deadline_s=None, budget_usd=None)
        try:
            choice = known.best(unlimited, candidate, simplify=free)
        except TxlplanError as error:
            return replace(bare, reason=error.message)
        done = planned(workload, candidate, choice)
        accounted = accounts(workload, done, terms.economics)
        account = chosen(accounted, terms.pay)
        tried = (*tried, account)
        reason = beyond_limits(workload, account)
        if not reason or found is bare:
            found = replace(bare, planned=done, accounts=accounted, account=account, reason=reason)
        if not reason:
            break
    return replace(found, tried=tried)


def _objective(candidate: Candidate, terms: Terms) -> Objective:
    """Of the plan on one candidate; where a figure that it needs is unknown, the fastest stands in."""
    cluster = candidate.cluster
    unknown = (terms.rank_by == "cost" and not _rented(candidate)) or (
        terms.rank_by == "energy" and cluster.device.power_w is None
    )
    return "fastest" if unknown else _OBJECTIVES[terms.rank_by]


def _rented(candidate: Candidate) -> bool:
    """Whether an on-demand price says which plan is cheapest."""
    return candidate.cluster.system.price("on-demand") is not None


def _with_efficiency(sizes: Sequence[Size]) -> list[Size]:
    """Speed per device beside the first size's."""
    speeds = [
        size.planned.choice.estimate.tokens_per_s.value / size.planned.n_devices if size.planned else None for size in sizes
    ]
    first = next((speed for speed in speeds if speed is not None), None)
    return [
        replace(size, efficiency=speed / first if speed is not None and first is not None else None)
        for size, speed in zip(sizes, speeds, strict=True)
    ]


def _with_front(rows: Sequence[Row]) -> list[Row]:
    """Rows with those marked that no other dominates in time, cost and energy (an unknown figure is the worst)."""
    points = [_point(row) if row.best else None for row in rows]
    return [
        replace(row, on_front=point is not None and not any(other and _dominates(other, point) for other in points))
        for row, point in zip(rows, points, strict=True)
    ]


def _point(row: Row) -> tuple[float, ...]:
    figures = (row.account.time_s, row.account.cost_usd, row.account.energy_j)
    return tuple(figure.value if figure else float("inf") for figure in figures)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(own <= its for own, its in zip(one, other, strict=True))
