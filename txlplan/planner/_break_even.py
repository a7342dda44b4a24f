"""How often a workload must be run until buying has paid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from txlplan.hardware import Economics
from txlplan.planner._compare import Row, Size
from txlplan.planner._payment import YEAR_S, Account, Way
from txlplan.units import format_count, format_s


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakEven:
    """A system that could be bought, against the cheapest one to rent."""

    bought: str
    rented: str
    capital_usd: float
    electricity_usd_per_run: float
    rent_usd_per_run: float
    pays: bool
    """Within the system's life, at the utilisation that is assumed."""
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

    @property
    def answer(self) -> str:
        """`pays after 120 runs (…), and so where …`, `does not pay at 50 % use: it would need 54 %` or `never pays: …`."""
        if self.runs is None or self.use_s is None or self.utilisation is None:
            return "never pays: electricity costs more than that rent"
        if self.utilisation > 1:
            return f"never pays: it would need {self.utilisation * 100:,.0f} % of its life"
        needed, assumed = f"{self.utilisation * 100:.3g} %", f"{self.assumed_utilisation * 100:.3g} %"
        if not self.pays:
            return f"does not pay at {assumed} use: it would need {needed}"
        return (
            f"pays after {format_count(self.runs)} runs ({format_s(self.use_s)} at work), and so where it is used at least "
            f"{needed} of its life ({assumed} is assumed)"
        )


Paid = tuple[Size, Account]
"""A size and one way to pay for it, whose cost is known."""


def pairs(rows: Sequence[Row]) -> list[tuple[Paid, Paid]]:
    """Every row that could be bought beside the cheapest on-demand rent of what exists: bought, rented.

    Of each, the size whose run costs least: the one that is best by what is ranked may waste its nodes.
    """
    rented = _cheapest((size for row in rows if not row.offer.hypothetical for size in row.sizes), "rent")
    bought = [_cheapest(row.sizes, "buy") for row in rows]
    return [(one, rented) for one in bought if one and rented]


def _cheapest(sizes: Iterable[Size], way: Way) -> Paid | None:
    """Of the sizes that are in, with its account in that way; None where no cost is known."""
    known = [
        (size, account)
        for size in sizes
        if not size.reason
        for account in size.accounts
        if account.way == way and account.cost_usd
    ]
    return min(known, key=_cost, default=None)


def _cost(paid: Paid) -> tuple[float, str]:
    size, account = paid
    assert account.cost_usd is not None
    return account.cost_usd.value, size.label


def break_evens(rows: Sequence[Row], economics: Economics) -> tuple[BreakEven, ...]:
    """Of every pair; empty where nothing can be bought, or rented."""
    return tuple(_break_even(bought, rented, economics) for bought, rented in pairs(rows))


def _break_even(to_buy: Paid, to_rent: Paid, economics: Economics) -> BreakEven:
    (size, bought), (other, rented) = to_buy, to_rent
    assert bought.capital_usd is not None
    assert bought.electricity_usd is not None
    assert rented.cost_usd is not None
    capital, electricity, rent = bought.capital_usd, bought.electricity_usd, rented.cost_usd
    runs = _runs(capital, rent.value, electricity.value)
    run_s = bought.time_s.value
    life_s = economics.life_years * YEAR_S
    life_runs = life_s * economics.utilisation / run_s
    return BreakEven(
        bought=size.label,
        rented=other.label,
        capital_usd=capital,
        electricity_usd_per_run=electricity.value,
        rent_usd_per_run=rent.value,
        pays=runs is not None and runs <= life_runs,
        runs=runs,
        runs_low=_runs(capital, rent.high, electricity.low),
        runs_high=_runs(capital, rent.low, electricity.high),
        use_s=None if runs is None else runs * run_s,
        utilisation=None if runs is None else runs * run_s / life_s,
        assumed_utilisation=economics.utilisation,
        life_runs=life_runs,
    )


def _runs(capital: float, rent: float, electricity: float) -> float | None:
    """`capital / (rent − electricity)`: what each run saves pays it back."""
    return capital / (rent - electricity) if rent > electricity else None
