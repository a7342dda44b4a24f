"""Which hardware for a workload: the best plan on each candidate, ranked by time, cost or energy."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from txlplan.errors import InputError, NoPlanFitsError, TxlplanError
from txlplan.estimates import Range
from txlplan.hardware import Economics
from txlplan.hardware import economics as economics_catalog
from txlplan.planner._attempts import Attempt, attempt, attempts, nearest, objective
from txlplan.planner._choose import Choice
from txlplan.planner._duration import Planned
from txlplan.planner._high_end import surer_plan
from txlplan.planner._known import Known, known_by_size, space_of
from txlplan.planner._limits import refusal, unpriced
from txlplan.planner._money import totals
from txlplan.planner._offer import Offer
from txlplan.planner._payment import Account, Pay
from txlplan.planner._probability import Origin, probability_within
from txlplan.planner._resolve import Candidate
from txlplan.planner._space import Space
from txlplan.planner._stand_in import Entry, Rank, best_size, rank_size, stand_in
from txlplan.workload import Workload

RankBy = Literal["time", "cost", "energy"]


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
        """What candidates are ranked by; None where it is unknown, or no price of the way to pay that is asked for."""
        if self.lacks_price(account):
            return None
        return {"time": account.time_s, "cost": account.cost_usd, "energy": account.whole_energy_j}[self.rank_by]

    def lacks_price(self, account: Account) -> bool:
        """Whether one way to pay is asked for, and no price of it is known."""
        return self.pay != "auto" and account.way is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One cluster of an offer, with its best plan: or why it has none."""

    candidate: Candidate
    label: str
    planned: Planned | None = None
    """With the best plan by its figures."""
    accounts: tuple[Account, ...] = ()
    """By every way to pay whose price is known."""
    account: Account | None = None
    """In the way that is asked for."""
    simpler: Choice | None = None
    """With a simpler plan that the ranges cannot tell from the best."""
    tried: tuple[Account, ...] = ()
    """The same of every plan that was held against deadline and budget."""
    efficiency: float | None = None
    """Tokens per second of each device that the plan occupies, over those of the offer's first size that has a plan."""
    deadline_probability: float | None = None
    """That the deadline is met, by the range of the time; None without one."""
    budget_probability: float | None = None
    """That the budget is kept, by the range of the cost; None without one, or a cost."""
    reason: str = ""
    """Why it is out: no plan, beyond deadline or budget, or without a price where cost decides."""
    unsuited: bool = False
    """Nothing tells whether a plan would fit: it cannot train so at all, or too little is known of it."""
    unpriced: bool = False
    """No price is known of the way to pay that is asked for, or none at all where cost decides."""
    on_front: bool = False
    """No other size of any candidate is as good in time, cost and energy, and better in one."""

    @property
    def tokens_per_s(self) -> Range | None:
        """Predicted throughput, None without a plan."""
        return self.planned.choice.estimate.tokens_per_s if self.planned else None

    @property
    def origin(self) -> Origin:
        """What its errors have in common with those of others. Only for sizes that have a plan."""
        assert self.planned is not None
        cluster = self.candidate.cluster
        links = (cluster.system.intra_node, cluster.system.inter_node if self.planned.n_nodes > 1 else None)
        return Origin(
            stack=self.candidate.stack.id,
            device=cluster.device.id,
            setup=(self.planned.n_devices, cluster.per_node, *links),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One candidate of a comparison."""

    offer: Offer
    sizes: tuple[Size, ...]
    best: Size | None
    """The best size by its figures, by which the candidate is ranked; None where every one is out."""
    smaller: Size | None = None
    """Of the first row: the smallest size that the ranges cannot tell from the best, where there is one."""
    smaller_probability: float | None = None
    """That the best really is better than that one."""
    simpler: Size | None = None
    """Of the first row: what is recommended with a simpler plan that the ranges cannot tell from its best."""
    surer: Size | None = None
    """Of the first row, where the plan that is recommended fits memory by its best figure only: with the best plan that fits at
    the high end of its range too, and is within the limits; None where there is none."""

    @property
    def recommended(self) -> Size:
        """What to take of it: the smaller size where there is one, else the best. Only for rows that have one."""
        assert self.best is not None
        return self.smaller or self.best

    @property
    def shown(self) -> tuple[Size, ...]:
        """The best size, and the smaller one that is recommended; empty where it is out."""
        return tuple(size for size in (self.best, self.smaller) if size)

    @property
    def on_front(self) -> bool:
        """Of its best size."""
        return self.best is not None and self.best.on_front

    @property
    def label(self) -> str:
        """Of its best size, or of the whole offer."""
        return self.best.label if self.best else self.offer.label

    @property
    def account(self) -> Account:
        """Of its best size. Only for rows that have one."""
        assert self.best is not None
        assert self.best.account is not None
        return self.best.account

    @property
    def reason(self) -> str:
        """Why it is out; empty where it is in."""
        return "" if self.best else "; ".join(dict.fromkeys(size.reason for size in self.sizes))

    @property
    def unsuited(self) -> bool:
        """It is out, and not for what is asked of a plan."""
        return self.best is None and any(size.unsuited for size in self.sizes)

    @property
    def unpriced(self) -> bool:
        """It lacks the price that is asked for: out where cost decides, else ranked after those that have one."""
        return any(size.unpriced for size in self.sizes)


Mapped = Callable[[Callable[[Offer], Row], Sequence[Offer]], Iterable[Row]]
"""Does what `map` does."""


def rows_of(workload: Workload, offers: Sequence[Offer], terms: Terms, space: Space | None, mapped: Mapped = map) -> list[Row]:
    """Every offer planned and ranked by its best figures, the best first; what is out comes last.

    Raises InputError without offers, tokens or the prices that are asked for, NoPlanFitsError when nothing is left.
    """
    if not offers:
        raise InputError("nothing to compare", hint="name systems, e.g. --on dgx-1,dgx-a100-40gb")
    if workload.tokens is None:
        raise InputError("a comparison needs the number of tokens", hint="state it with --tokens, e.g. --tokens 1.8e9")
    planned_rows = mapped(partial(_row, workload, terms, space), offers)
    rows = sorted(planned_rows, key=lambda row: _rank(row, terms))
    if rows[0].best is None or terms.lacks_price(rows[0].account):
        raise refusal(workload, [size for row in rows for size in row.sizes], terms)
    first, *others = _with_front(rows)
    first = _with_simpler(workload, first, terms)
    return [replace(first, surer=_surer(workload, first, terms, space or Space())), *others]


def _rank(row: Row, terms: Terms) -> Rank:
    return rank_size(row.best, row.account, terms) if row.best else (3, 0.0, 0.0, 0, row.label)


def _row(workload: Workload, terms: Terms, space: Space | None, offer: Offer) -> Row:
    sizes = _sizes(workload, terms, space or Space(), offer)
    best = best_size(_in(sizes), terms)
    return Row(offer=offer, sizes=tuple(sizes), best=best[0] if best else None)


def _sizes(workload: Workload, terms: Terms, space: Space, offer: Offer) -> list[Size]:
    known = known_by_size(workload, offer, space, whole_first=_whole_first(offer, terms))
    sizes = [_size(workload, offer, candidate, terms, own) for candidate, own in zip(offer.sizes, known, strict=True)]
    return _with_efficiency(sizes)


def _in(sizes: Sequence[Size]) -> list[Entry]:
    return [(size, size.account) for size in sizes if size.account and not size.reason]


def _with_simpler(workload: Workload, row: Row, terms: Terms) -> Row:
    """The row that is recommended, with the smaller size and the simpler plan that the ranges cannot tell from its best."""
    assert row.best is not None
    found = stand_in(_in(row.sizes), (row.best, row.account), terms)
    if found is not None:
        row = replace(row, smaller=found.size, smaller_probability=found.probability)
    size = row.recommended
    if size.simpler is None:
        return row
    tried = attempt(workload, size.candidate, size.simpler, terms)
    return row if tried.missed else replace(row, simpler=_filled(size, workload, tried))


def _surer(workload: Workload, row: Row, terms: Terms, space: Space) -> Size | None:
    """What is recommended with a plan that fits at the high end of the range of its memory too; None where its own does."""
    size = row.recommended
    assert size.planned is not None
    cluster, choice = size.candidate.cluster, size.planned.choice
    own = replace(
        space_of(space, cluster, ranged=len(row.sizes) > 1),
        whole_nodes=_whole_first(row.offer, terms) and choice.plan.n_devices % cluster.per_node == 0,
    )
    asked = replace(workload, objective=objective(size.candidate, terms), deadline_s=None, budget_usd=None)
    found = surer_plan(asked, cluster, size.candidate.stack, own, choice)
    if found is None:
        return None
    figures = totals(workload, cluster, found.plan, found.estimate)
    runnable = found.plan.runnable
    other = replace(choice, plan=found.plan, estimate=found.estimate, totals=figures, runnable=runnable, runners_up=())
    tried = attempt(workload, size.candidate, other, terms)
    return None if tried.missed else _filled(size, workload, tried)


def _whole_first(offer: Offer, terms: Terms) -> bool:
    """Ranked by energy, where nobody knows what idle devices draw, plans that leave none idle come first."""
    return terms.rank_by == "energy" and offer.sizes[0].cluster.device.power_idle_w is None


def _size(workload: Workload, offer: Offer, candidate: Candidate, terms: Terms, known: Known) -> Size:
    """The plan of one cluster that is best by its figures among those within the limits, all time and money counted."""
    bare = Size(candidate=candidate, label=offer.label_of(candidate))
    try:
        tried = attempts(workload, candidate, known, terms)
    except TxlplanError as error:
        return replace(bare, reason=error.message, unsuited=not isinstance(error, NoPlanFitsError))
    within = [one for one in tried if not one.missed]
    best = min(within or tried[:1], key=lambda one: rank_size(bare, one.account, terms))
    lacking = best.account.way is None and (terms.pay != "auto" or bool(unpriced(workload, best.account, terms)))
    found = replace(bare, simpler=best.simpler, tried=tuple(one.account for one in tried), unpriced=lacking)
    return replace(_filled(found, workload, best), reason="" if within else nearest(workload, tried))


def _filled(size: Size, workload: Workload, tried: Attempt) -> Size:
    """The size with a plan and its account."""
    return replace(
        size,
        planned=tried.planned,
        accounts=tried.accounts,
        account=tried.account,
        deadline_probability=probability_within(tried.account.time_s, workload.deadline_s),
        budget_probability=probability_within(tried.account.cost_usd, workload.budget_usd),
    )


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
    """Rows with those sizes marked that no other dominates in time, cost and energy (an unknown figure is the worst)."""
    points = {id(size): _point(account) for row in rows for size, account in _in(row.sizes)}

    def marked(size: Size) -> Size:
        """Whether it is on the front; what is out is not."""
        point = points.get(id(size))
        return size if point is None else replace(size, on_front=not any(_dominates(each, point) for each in points.values()))

    found = []
    for row in rows:
        sizes = tuple(map(marked, row.sizes))
        best = None if row.best is None else sizes[[size is row.best for size in row.sizes].index(True)]
        found.append(replace(row, sizes=sizes, best=best))
    return found


def _point(account: Account) -> tuple[float, ...]:
    figures = (account.time_s, account.cost_usd, account.whole_energy_j)
    return tuple(figure.value if figure else float("inf") for figure in figures)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(own <= its for own, its in zip(one, other, strict=True))
