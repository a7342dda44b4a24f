"""The best plan of one cluster within deadline and budget, with all of the time and money counted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from txlplan.choices import Objective
from txlplan.hardware import Price
from txlplan.planner._choose import Choice, best_by_figures
from txlplan.planner._duration import Planned, planned
from txlplan.planner._known import Known
from txlplan.planner._limits import beyond_limits, unpriced
from txlplan.planner._money import totals
from txlplan.planner._payment import Account, accounts, chosen
from txlplan.planner._resolve import Candidate
from txlplan.workload import Workload

if TYPE_CHECKING:
    from txlplan.planner._compare import Terms

_OBJECTIVES: dict[str, Objective] = {"time": "fastest", "cost": "cheapest", "energy": "least-energy"}
_PRICES = {"auto": ("on-demand", "purchase"), "rent": ("on-demand",), "spot": ("spot",), "buy": ("purchase",)}
_ROUNDS = 4
"""Searches within limits, each less the overhead of the plan before, which differs between plans by a few per cent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A plan held against deadline and budget."""

    planned: Planned
    accounts: tuple[Account, ...]
    """By every way to pay whose price is known."""
    account: Account
    """In the way that is asked for."""
    missed: str
    """Why it is beyond a limit; empty where it is not."""
    simpler: Choice | None = None
    """With a simpler plan that the ranges cannot tell from it."""


def attempt(workload: Workload, candidate: Candidate, choice: Choice, terms: Terms) -> Attempt:
    """A plan, accounted for."""
    done = planned(workload, candidate, choice)
    known = accounts(workload, done, terms.economics)
    account = chosen(known, terms.pay)
    return Attempt(planned=done, accounts=known, account=account, missed=beyond_limits(workload, account, terms))


def attempts(workload: Workload, candidate: Candidate, known: Known, terms: Terms) -> list[Attempt]:
    """What was tried: the best plan by its figures; where that misses a limit, the best within them, or what comes nearest.

    Raises NoPlanFitsError, InputError where there is no plan at all.
    """
    ask = _Ask(workload=workload, candidate=candidate, known=known, terms=terms)
    wanted = objective(candidate, terms)
    first = ask.free(wanted)
    if not first.missed or unpriced(workload, first.account, terms):
        return [first]
    tried = [first, *ask.within(wanted, first, workload)]
    if _met(tried):
        return tried
    limits: dict[Objective, float | None] = {"fastest": workload.deadline_s, "cheapest": workload.budget_usd}
    extremes = {one: first if one == wanted else ask.free(one) for one, limit in limits.items() if limit is not None}
    tried += extremes.values()
    if not _met(tried) and len(extremes) > 1:
        tried += ask.within("fastest", extremes["cheapest"], replace(workload, deadline_s=None))
        tried += ask.within("cheapest", extremes["fastest"], replace(workload, budget_usd=None))
    return [*tried, *(other for one in _met(tried)[:1] for other in ask.within(wanted, one, workload))]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask:
    """Searches of one cluster."""

    workload: Workload
    candidate: Candidate
    known: Known
    terms: Terms

    def free(self, wanted: Objective) -> Attempt:
        """The best plan whatever it takes, with the simpler one that `plan` would offer. Raises NoPlanFitsError, InputError."""
        asked = replace(self.workload, objective=wanted, deadline_s=None, budget_usd=None)
        choice = self.known.best(asked, self.candidate)
        best = best_by_figures(choice, asked, self.candidate.cluster)
        found = attempt(self.workload, self.candidate, best, self.terms)
        return replace(found, simpler=choice if choice.optimum else None)

    def within(self, wanted: Objective, last: Attempt, limits: Workload) -> Iterator[Attempt]:
        """The best plan within limits, less the overhead of the plan before, until a plan comes again or none is left."""
        seen = {last.planned.choice.plan}
        for _ in range(_ROUNDS):
            asked, candidate = _less_overhead(replace(limits, objective=wanted), self.candidate, last)
            choice = self.known.within(asked, candidate)
            if choice is None or choice.plan in seen:
                return
            seen.add(choice.plan)
            figures = totals(self.workload, self.candidate.cluster, choice.plan, choice.estimate)
            last = attempt(self.workload, self.candidate, replace(choice, totals=figures), self.terms)
            yield last


def _less_overhead(limits: Workload, candidate: Candidate, known: Attempt) -> tuple[Workload, Candidate]:
    """Limits and prices as the search counts them, in steps alone, so that it costs a known plan what its account says.

    Of the deadline, the share that are steps is left; a node costs what it does in all, whichever way it is paid for, for each
    second of steps.
    """
    account, steps_s = known.account, known.account.duration.steps_s
    if limits.deadline_s is not None:
        limits = replace(limits, deadline_s=limits.deadline_s * steps_s / account.time_s.value)
    if limits.budget_usd is not None and account.cost_usd is not None:
        rent = account.cost_usd.value / (known.planned.n_nodes * steps_s / 3600)
        price = Price(kind="on-demand", rent_usd_per_h=rent, date="", source="a known plan's account")
        cluster = candidate.cluster
        candidate = replace(candidate, cluster=replace(cluster, system=replace(cluster.system, prices=(price,))))
    return limits, candidate


def objective(candidate: Candidate, terms: Terms) -> Objective:
    """Of the plan on one candidate; where a figure that it needs is unknown, the fastest stands in."""
    cluster = candidate.cluster
    priced = any(price.kind in _PRICES[terms.pay] for price in cluster.system.prices)
    unknown = (terms.rank_by == "cost" and not priced) or (terms.rank_by == "energy" and cluster.device.power_w is None)
    return "fastest" if unknown else _OBJECTIVES[terms.rank_by]


def nearest(workload: Workload, tried: Sequence[Attempt]) -> str:
    """Why none is in: what the fastest misses, and the cheapest; or that no cost is known."""
    said = []
    if workload.deadline_s is not None:
        said.append(min(tried, key=lambda one: one.account.time_s.value).missed)
    if workload.budget_usd is not None:
        said.append(min(tried, key=lambda one: one.account.cost_usd.value if one.account.cost_usd else math.inf).missed)
    return ", or ".join(dict.fromkeys(said)) or tried[0].missed


def _met(tried: list[Attempt]) -> list[Attempt]:
    return [one for one in tried if not one.missed]
