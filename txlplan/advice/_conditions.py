"""Conditions on an answer, for scripts that must notice when it changes: `cost > 500 USD`, `best != dgx-1`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence

from txlplan.errors import InputError
from txlplan.hardware import is_stale
from txlplan.planner import Comparison
from txlplan.units import JOULES, SECONDS, USD, format_j, format_s, format_usd

_CONDITION = re.compile(r"^\s*([a-z-]+)\s*(?:(<=|>=|!=|<|>)\s*(.+?))?\s*$")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_HINT = "write 'time > 3 d', 'cost > 500 USD', 'energy > 10 kWh', 'probability < 80%', 'best != dgx-1' or 'stale-prices'"


def missed(conditions: Sequence[str], comparison: Comparison) -> tuple[str, ...]:
    """What holds of `conditions`, each in words with the figure that made it so; empty where none does.

    A figure that is unknown meets its condition: a bar that cannot be checked is not passed. Raises InputError for a
    condition that cannot be read.
    """
    return tuple(text for condition in conditions if (text := _missed(condition, comparison)))


def _missed(condition: str, comparison: Comparison) -> str:
    match = _CONDITION.match(condition)
    if match is None:
        raise InputError(f"--fail-on {condition!r} is no condition", hint=_HINT)
    name, sign, text = match[1], match[2], match[3]
    if name == "stale-prices" and sign is None:
        return _stale(comparison)
    if name == "best" and sign == "!=":
        best = comparison.verdict.best
        return f"best is {best}, not {text}" if best != text else ""
    if sign in _COMPARISONS and name in ("time", "cost", "energy", "probability"):
        value, bound, write = _figure(name, text, comparison)
        if value is None:
            return f"{name} of {comparison.verdict.best} is unknown"
        return f"{name} is {write(value)} ({condition.strip()})" if _COMPARISONS[sign](value, bound) else ""
    raise InputError(f"--fail-on {condition!r} is no condition", hint=_HINT)


def _figure(name: str, text: str, comparison: Comparison) -> tuple[float | None, float, Callable[[float | None], str]]:
    """The figure of the recommended candidate, the bound, and how both are written."""
    account = comparison.rows[0].account
    try:
        if name == "time":
            return account.time_s.value, SECONDS.parse(text), format_s
        if name == "cost":
            bound = USD.parse(text if text.endswith("USD") else f"{text} USD")
            return account.cost_usd.value if account.cost_usd else None, bound, format_usd
        if name == "energy":
            return account.energy_j.value if account.energy_j else None, JOULES.parse(text), format_j
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise InputError(f"--fail-on {name}: {error}", hint=_HINT) from None
    if not 0 <= share <= 1:
        raise InputError(f"--fail-on probability: {text} is not between 0 and 1 (or 0% and 100%)", hint=_HINT)
    return comparison.verdict.probability, share, lambda value: f"{value:.0%}"


def _stale(comparison: Comparison) -> str:
    stale = [
        f"{row.label} ({row.account.price.date})"
        for row in comparison.ranked
        if row.account.price and is_stale(row.account.price, comparison.terms.today)
    ]
    return f"prices older than 90 days: {', '.join(stale)}" if stale else ""
