"""Conditions on an answer, for scripts that must notice when it changes: `cost > 500 USD`, `best != dgx-1`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from functools import partial

from txlplan.errors import InputError
from txlplan.estimates import Range
from txlplan.planner import Account, Comparison
from txlplan.units import DURATION, JOULES, USD, format_j, format_s, format_usd

_CONDITION = re.compile(r"^\s*([a-z-]+)\s*(?:(<=|>=|!=|<|>)\s*(.+?))?\s*$")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_HINT = "write 'time > 3 d', 'cost > 500 USD', 'energy > 10 kWh', 'probability < 80%', 'best != dgx-1' or 'stale-prices'"


Bar = Callable[[Comparison], str]
"""Tells in words why an answer misses it, with the figure that makes it so; empty where it does not."""


def bar(condition: str) -> Bar:
    """The bar that a condition sets. A figure that is unknown misses it: what cannot be checked is not passed.

    Raises InputError for a condition that cannot be read.
    """
    match = _CONDITION.match(condition)
    name, sign, text = match.groups() if match else ("", None, None)
    if name == "stale-prices" and sign is None:
        return _stale
    if name == "best" and sign == "!=" and text:
        return partial(_other_than, text)
    if text is None or sign not in _COMPARISONS or name not in _FIGURES:
        raise InputError(f"--fail-on {condition!r} is no condition", hint=_HINT)
    bound, holds = _bound(name, text), _COMPARISONS[sign]
    figure, write = _FIGURES[name]

    def missed(comparison: Comparison) -> str:
        value = figure(comparison)
        if value is None:
            return f"{name} of {comparison.verdict.best} is unknown"
        return f"{name} is {write(value)} ({condition.strip()})" if holds(value, bound) else ""

    return missed


def missed(conditions: Sequence[str], comparison: Comparison) -> tuple[str, ...]:
    """Which of `conditions` hold, each in words. Raises InputError for one that cannot be read."""
    return tuple(text for each in map(bar, conditions) if (text := each(comparison)))


def _other_than(wanted: str, comparison: Comparison) -> str:
    """Where another candidate is recommended; `4xdgx-1`, as it is asked for, is the one that is shown as `4x dgx-1`."""
    names = {size.label for row in comparison.rows for size in row.sizes}
    name = re.sub(r"^(\d+)x(?=\S)", r"\1x ", wanted).removeprefix("1x ")
    if name not in names:
        raise InputError(
            f"--fail-on 'best != {wanted}': no candidate has that name", hint=f"candidates: {', '.join(sorted(names))}"
        )
    return "" if comparison.verdict.best == name else f"best is {comparison.verdict.best}, not {name}"


def _bound(name: str, text: str) -> float:
    """What a figure is held against, in its base unit."""
    try:
        if name == "time":
            return DURATION.parse(text)
        if name == "cost":
            return USD.parse(text if text.endswith("USD") else f"{text} USD")
        if name == "energy":
            return JOULES.parse(text)
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise InputError(f"--fail-on {name}: {error}", hint=_HINT) from None
    if not 0 <= share <= 1:
        raise InputError(f"--fail-on probability: {text} is not between 0 and 1 (or 0% and 100%)", hint=_HINT)
    return share


def _account(comparison: Comparison) -> Account:
    account = comparison.rows[0].recommended.account
    assert account is not None
    return account


def _value(range_: Range | None) -> float | None:
    return range_.value if range_ else None


_FIGURES: dict[str, tuple[Callable[[Comparison], float | None], Callable[[float | None], str]]] = {
    "time": (lambda comparison: _account(comparison).time_s.value, format_s),
    "cost": (lambda comparison: _value(_account(comparison).cost_usd), format_usd),
    "energy": (lambda comparison: _value(_account(comparison).whole_energy_j), format_j),
    "probability": (lambda comparison: comparison.verdict.probability, lambda value: f"{value:.0%}"),
}
"""Figures of the recommended candidate, and how they are written."""


def _stale(comparison: Comparison) -> str:
    stale = [f"{system} ({price.date})" for system, price in comparison.stale_prices]
    return f"prices older than 90 days: {', '.join(stale)}" if stale else ""
