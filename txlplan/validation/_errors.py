"""Error statistics over many scored quantities."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from txlplan.validation._rows import Scored


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """How far predictions lie from measurements. All but `n` are fractions (0.05 is 5 %), None where `n` is 0."""

    n: int
    """Quantities that were both predicted and measured."""
    mape: float | None
    """Mean absolute relative error."""
    median: float | None
    """Median absolute relative error."""
    p90: float | None
    """The absolute relative error that nine in ten stay within (linear between order statistics)."""
    bias: float | None
    """Mean signed relative error: above zero where predictions are too high."""
    coverage: float | None
    """Share of measurements inside their 80 % interval."""


def errors(scored: Iterable[Scored]) -> Errors:
    """Statistics of what was measured; the rest is left out."""
    measured = [(item.relative_error, item.inside) for item in scored]
    signed = [error for error, _ in measured if error is not None]
    inside = [within for error, within in measured if error is not None]
    absolute = sorted(abs(error) for error in signed)
    if not absolute:
        return Errors(n=0, mape=None, median=None, p90=None, bias=None, coverage=None)
    return Errors(
        n=len(absolute),
        mape=statistics.fmean(absolute),
        median=statistics.median(absolute),
        p90=_quantile(absolute, 0.9),
        bias=statistics.fmean(signed),
        coverage=sum(map(bool, inside)) / len(inside),
    )


def _quantile(ascending: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics (Hyndman and Fan 1996, type 7)."""
    position = share * (len(ascending) - 1)
    below = int(position)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (position - below) * (ascending[above] - ascending[below])
