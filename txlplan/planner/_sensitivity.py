"""Would the recommendation stand if a price, the length of the run or the use of the machine were otherwise?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from txlplan.estimates import Range
from txlplan.hardware import Economics
from txlplan.planner._compare import Row, Size, Terms
from txlplan.planner._limits import beyond_limits
from txlplan.planner._payment import Account, accounts, chosen
from txlplan.planner._stand_in import Entry, best_size, rank_size, stand_in
from txlplan.workload import Workload

PRICE_STEP = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """One thing changed, all candidates accounted for again with the plans they have."""

    change: str
    best: str
    """What would be recommended; empty where every candidate would miss the deadline or the budget, or it cannot be told."""
    changes: bool | None
    """Whether that is another one; None where it cannot be told, since the price or the figure in question is unknown."""
    time_s: Range | None
    cost_usd: Range | None
    """Of what would be recommended."""


def sensitivities(workload: Workload, rows: Sequence[Row], terms: Terms) -> tuple[Sensitivity, ...]:
    """Price of the recommended ± 20 %, twice the tokens, and, where something would be bought, half the utilisation.

    Money is left out where it decides nothing: ranked by time or energy, without a budget.
    """
    assert workload.tokens is not None
    size, account = rows[0].recommended, rows[0].account
    system = size.candidate.cluster.system.id
    half = replace(terms.economics, utilisation=terms.economics.utilisation / 2)
    twice = replace(workload, tokens=2 * workload.tokens)

    def changed(
        change: str, *, asked: Workload = workload, economics: Economics = terms.economics, factor: float = 1.0
    ) -> Sensitivity:
        if terms.metric(account) is None or (factor != 1.0 and account.price is None):
            return Sensitivity(change=change, best="", changes=None, time_s=None, cost_usd=None)
        return _changed(change, asked, rows, replace(terms, economics=economics), {system: factor})

    money = terms.rank_by == "cost" or workload.budget_usd is not None
    found = []
    if money:
        found += [
            changed(f"{system} is 20 % dearer", factor=1 + PRICE_STEP),
            changed(f"{system} is 20 % cheaper", factor=1 - PRICE_STEP),
        ]
    found.append(changed("the run is twice as long", asked=twice))
    if money and any(row.best and row.account.way == "buy" for row in rows):
        found.append(changed("what is bought is used half as much", economics=half))
    return tuple(found)


def _changed(
    change: str, workload: Workload, rows: Sequence[Row], terms: Terms, price_factors: Mapping[str, float]
) -> Sensitivity:
    """Every size accounted for again; `price_factors` scale the prices of systems, by id, wherever they are candidates."""
    found: list[tuple[Entry, list[Entry]]] = []
    for row in rows:
        known = [
            (size, account)
            for size in row.sizes
            if (account := _account(workload, size, terms, price_factors)) and not beyond_limits(workload, account, terms)
        ]
        if best := best_size(known, terms):
            found.append((best, known))
    if not found:
        return Sensitivity(change=change, best="", changes=True, time_s=None, cost_usd=None)
    best, known = min(found, key=lambda entry: rank_size(entry[0][0], entry[0][1], terms))
    smaller = stand_in(known, best, terms)
    size, account = (smaller.size, smaller.account) if smaller else best
    changes = size.label != rows[0].recommended.label
    return Sensitivity(change=change, best=size.label, changes=changes, time_s=account.time_s, cost_usd=account.cost_usd)


def _account(workload: Workload, size: Size, terms: Terms, price_factors: Mapping[str, float]) -> Account | None:
    if size.planned is None:
        return None
    cluster = size.planned.candidate.cluster
    factor = price_factors.get(cluster.system.id, 1.0)
    prices = tuple(
        replace(
            price,
            rent_usd_per_h=None if price.rent_usd_per_h is None else price.rent_usd_per_h * factor,
            purchase_usd=None if price.purchase_usd is None else price.purchase_usd * factor,
        )
        for price in cluster.system.prices
    )
    candidate = replace(size.planned.candidate, cluster=replace(cluster, system=replace(cluster.system, prices=prices)))
    return chosen(accounts(workload, replace(size.planned, candidate=candidate), terms.economics), terms.pay)
