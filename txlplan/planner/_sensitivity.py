"""Would the recommendation stand if a price, the length of the run or the use of the machine were otherwise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from txlplan.estimates import Range
from txlplan.hardware import Economics
from txlplan.planner._compare import Row, Size, Terms, rank_size
from txlplan.planner._limits import beyond_limits
from txlplan.planner._payment import Account, accounts, chosen
from txlplan.workload import Workload

PRICE_STEP = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """One thing changed, all candidates accounted for again with the plans they have."""

    change: str
    best: str
    """What would be recommended; empty where every candidate would miss the deadline or the budget."""
    changes: bool
    """Whether that is another one."""
    time_s: Range | None
    cost_usd: Range | None
    """Of what would be recommended."""


def sensitivities(workload: Workload, rows: Sequence[Row], terms: Terms) -> tuple[Sensitivity, ...]:
    """Price of the recommended ± 20 %, twice the tokens, and, where something would be bought, half the utilisation."""
    assert workload.tokens is not None
    best = rows[0].label
    half = replace(terms.economics, utilisation=terms.economics.utilisation / 2)
    twice = replace(workload, tokens=2 * workload.tokens)
    found = [
        _changed(f"{best} is 20 % dearer", workload, rows, terms, terms.economics, 1 + PRICE_STEP),
        _changed(f"{best} is 20 % cheaper", workload, rows, terms, terms.economics, 1 - PRICE_STEP),
        _changed("the run is twice as long", twice, rows, terms, terms.economics, 1.0),
    ]
    if any(row.best and row.account.way == "buy" for row in rows):
        found.append(_changed("what is bought is used half as much", workload, rows, terms, half, 1.0))
    return tuple(found)


def _changed(
    change: str, workload: Workload, rows: Sequence[Row], terms: Terms, economics: Economics, price_factor: float
) -> Sensitivity:
    """Every size accounted for again; `price_factor` scales the prices of the row that is recommended."""
    found: list[tuple[tuple[int, float, float, int, str], Size, Account]] = []
    for index, row in enumerate(rows):
        for size in row.sizes:
            account = _account(workload, size, terms, economics, price_factor if index == 0 else 1.0)
            if account is not None and not beyond_limits(workload, account):
                found.append((rank_size(size, account, terms), size, account))
    if not found:
        return Sensitivity(change=change, best="", changes=True, time_s=None, cost_usd=None)
    _, size, account = min(found, key=lambda entry: entry[0])
    return Sensitivity(
        change=change, best=size.label, changes=size.label != rows[0].label, time_s=account.time_s, cost_usd=account.cost_usd
    )


def _account(workload: Workload, size: Size, terms: Terms, economics: Economics, price_factor: float) -> Account | None:
    if size.planned is None:
        return None
    cluster = size.planned.candidate.cluster
    prices = tuple(
        replace(
            price,
            rent_usd_per_h=None if price.rent_usd_per_h is None else price.rent_usd_per_h * price_factor,
            purchase_usd=None if price.purchase_usd is None else price.purchase_usd * price_factor,
        )
        for price in cluster.system.prices
    )
    candidate = replace(size.planned.candidate, cluster=replace(cluster, system=replace(cluster.system, prices=prices)))
    return chosen(accounts(workload, replace(size.planned, candidate=candidate), economics), terms.pay)
