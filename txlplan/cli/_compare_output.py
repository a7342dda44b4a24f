"""What `txlplan compare` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from txlplan.cli._targets import ranged
from txlplan.units import format_j, format_rate, format_s, format_usd

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.advice import Advice
    from txlplan.planner import Account, Comparison, Row, Sensitivity, Size


def show(console: Console, found: Advice, written: Sequence[Path]) -> None:
    """The candidates, what would change the answer, what to be warned of, and the verdict last."""
    comparison = found.comparison
    _print_candidates(console, comparison)
    lines = [*_scaling(comparison), *_what_if(comparison), *(f"note: {text}" for text in comparison.warnings)]
    lines += [*(f"wrote {path}" for path in written), *comparison.verdict.details, found.verdict]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _print_candidates(console: Console, comparison: Comparison) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for header in ("candidate", "time", "cost", "energy", "throughput", "paid by", "front", "plan"):
        table.add_column(header, overflow="fold")
    for row in comparison.rows:
        for size in row.shown:
            table.add_row(*_cells(row, size))
        if row.best is None:
            table.add_row(row.label, "out", "", "", "", "", "", row.reason)
    console.print(table)


def _cells(row: Row, size: Size) -> tuple[str, ...]:
    """Of the best size of a candidate, or of the smaller one that is recommended."""
    from txlplan.planner import describe

    assert size.planned is not None
    assert size.account is not None
    account, choice = size.account, size.planned.choice
    idle = f", without {account.n_uncounted} idle devices" if account.n_uncounted else ""
    return (
        f"{size.label} (recommended)" if size is row.smaller else size.label,
        ranged(account.time_s, format_s),
        ranged(account.cost_usd, format_usd),
        ranged(account.energy_j, format_j) + idle,
        format_rate(choice.estimate.tokens_per_s.value, "tokens"),
        _paid_by(account),
        "yes" if size.on_front else "",
        describe(choice.plan),
    )


def _paid_by(account: Account) -> str:
    """`rent`, or `buy, an outlay of $149,000`."""
    from txlplan.planner import outlay

    return ", ".join(filter(None, (account.way or "unknown", outlay(account))))


def _scaling(comparison: Comparison) -> list[str]:
    """A line for each candidate of several sizes."""
    return [
        f"efficiency of {row.offer.label} by devices: "
        + ", ".join(
            f"{size.planned.n_devices}: {size.efficiency:.0%}"
            for size in row.sizes
            if size.planned and size.efficiency is not None
        )
        for row in comparison.rows
        if len(row.sizes) > 1
    ]


def _what_if(comparison: Comparison) -> list[str]:
    """Break-even and sensitivity, a line each."""
    bought = [f"buying {one.bought} instead of renting {one.rented} {one.answer}" for one in comparison.break_evens]
    return [*bought, *(f"if {case.change}: {_then(case)}" for case in comparison.sensitivities)]


def _then(case: Sensitivity) -> str:
    if case.changes is None:
        return "cannot be told: its price, or what candidates are ranked by, is unknown"
    if not case.best:
        return "with the plans shown, every candidate misses the deadline or the budget (a new comparison may find others)"
    return f"take {case.best} instead" if case.changes else "the recommendation stands"
