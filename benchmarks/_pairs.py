"""Two ways to do the same, timed in turn: A B A B. What a shared machine does meanwhile then falls on both."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

LEAST_PAIRS = 7
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """How many times faster `b` is than `a`: the median over pairs, and its 90 % interval."""

    value: float
    low: float
    high: float
    a_s: float
    b_s: float
    """Median seconds of a unit of work."""
    pairs: int


def ratio(a: Callable[[], object], b: Callable[[], object], *, pairs: int, a_units: float = 1.0, b_units: float = 1.0) -> Ratio:
    """Time `a` and `b`, of so many units of work a call, `pairs` times in turn after one call of each.

    The interval is the percentile bootstrap of the median of the pairs' ratios, with a fixed seed.
    """
    a()
    b()
    times = [(_timed(a) / a_units, _timed(b) / b_units) for _ in range(pairs)]
    logs = [math.log(a_s / b_s) for a_s, b_s in times]
    source = random.Random(1)
    medians = sorted(median(source.choices(logs, k=len(logs))) for _ in range(_RESAMPLES))
    return Ratio(
        value=math.exp(median(logs)),
        low=math.exp(medians[round(0.05 * _RESAMPLES)]),
        high=math.exp(medians[round(0.95 * _RESAMPLES) - 1]),
        a_s=median(a_s for a_s, _ in times),
        b_s=median(b_s for _, b_s in times),
        pairs=pairs,
    )


def _timed(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s
