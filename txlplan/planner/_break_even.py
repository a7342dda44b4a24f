"""How often a workload must be run until buying has paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from txlplan.hardware import Economics
from txlplan.planner._compare import Row, Size
from txlplan.planner._payment import YEAR_S, Account, capital_usd


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakEven:
    """A system that could be bought, against the cheapest one to rent."""

    bought: str
    rented: str
    capital_usd: float
    electricity_usd_per_run: float
    rent_usd_per_run: float
    runs: float | None
    """Runs of the workload after which buying has cost less; None where renting costs less per run than electricity."""
    runs_low: float | None
    """With the dearest rent and the least electricity of the ranges."""
    runs_high: float | None
    """With the cheapest rent and the most electricity; None: never."""
    use_s: float | None
    """Hours at work until then, in seconds."""
    utilisation: float | None
    """Share of the system's life that it must be at work for buying to pay; above 1, it never does."""
    assumed_utilisation: float
    """Share of its life that it is taken to be at work (the assumptions' `utilisation`)."""
    life_runs: float
    """Runs that fit in the system's life, at that utilisation."""


def break_evens(rows: Sequence[Row], economics: Economics) -> tuple[BreakEven, ...]:
    """Every row whose purchase price is known against the cheapest on-demand rent of what exists; empty without either."""
    rents = [
        (one.cost_usd.value, row, one)
        for row in rows
        if row.best and not row.offer.hypothetical
        for one in row.best.accounts
        if one.way == "rent" and one.cost_usd
    ]
    if not rents:
        return ()
    _, cheapest, rented = min(rents, key=lambda entry: (entry[0], entry[1].label))
    return tuple(
        _break_even(row.best, one, cheapest.label, rented, economics)
        for row in rows
        if row.best
        for one in row.best.accounts
        if one.way == "buy" and one.electricity_usd
    )


def _break_even(size: Size, bought: Account, rented_label: str, rented: Account, economics: Economics) -> BreakEven:
    assert size.planned is not None
    assert bought.price is not None
    assert bought.electricity_usd is not None
    assert rented.cost_usd is not None
    capital = capital_usd(size.planned, bought.price)
    electricity, rent = bought.electricity_usd, rented.cost_usd
    runs = _runs(capital, rent.value, electricity.value)
    run_s = bought.time_s.value
    life_s = economics.life_years * YEAR_S
    return BreakEven(
        bought=size.label,
        rented=rented_label,
        capital_usd=capital,
        electricity_usd_per_run=electricity.value,
        rent_usd_per_run=rent.value,
        runs=runs,
        runs_low=_runs(capital, rent.high, electricity.low),
        runs_high=_runs(capital, rent.low, electricity.high),
        use_s=None if runs is None else runs * run_s,
        utilisation=None if runs is None else runs * run_s / life_s,
        assumed_utilisation=economics.utilisation,
        life_runs=life_s * economics.utilisation / run_s,
    )


def _runs(capital: float, rent: float, electricity: float) -> float | None:
    """`capital / (rent − electricity)`: what each run saves pays it back."""
    return capital / (rent - electricity) if rent > electricity else None
