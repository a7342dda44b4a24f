"""How likely it is, given the ranges, that the candidate that looks best is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from txlplan.cost._ranges import Z_80
from txlplan.estimates import Range

_DRAWS = 40_000
"""A probability of one half is then off by less than 0.5 points, 19 times in 20."""
_SEED = 20_190_109


def probability_least(values: Sequence[Range], stacks: Sequence[str], best: int, *, shared_error: float) -> float:
    """The probability that `values[best]` is the least of all.

    The true value of candidate i is `exp(mu_i + sd_i (√s g + √(1−s) e_i))` with `sd_i` from its 80 % range, `g` an error
    that all candidates with the same stack have in common, `e_i` its own, and `s` the shared share of the variance.
    Estimated from 40,000 seeded draws, so that equal input gives an equal answer. Equal values share the lead.
    """
    mu = np.array([math.log(value.value) for value in values])
    sd = np.array([_log_sd(value) for value in values])
    names = sorted(set(stacks))
    source = np.random.default_rng(_SEED)
    common = source.standard_normal((_DRAWS, len(names)))[:, [names.index(name) for name in stacks]]
    own = source.standard_normal((_DRAWS, len(values)))
    drawn = mu + sd * (math.sqrt(shared_error) * common + math.sqrt(1 - shared_error) * own)
    least = drawn == drawn.min(axis=1, keepdims=True)
    return float((least[:, best] / least.sum(axis=1)).mean())


def probability_less(one: Range, other: Range, *, shared_error: float) -> float:
    """The probability that the true value of `one` is less than that of `other`, both of one stack, errors as above.

    Closed: the logarithm of their ratio is normal with variance `s (sd₁ − sd₂)² + (1 − s) (sd₁² + sd₂²)`.
    """
    sd, its = _log_sd(one), _log_sd(other)
    variance = shared_error * (sd - its) ** 2 + (1 - shared_error) * (sd**2 + its**2)
    return _normal(math.log(other.value / one.value), variance)


def probability_within(value: Range | None, limit: float | None) -> float | None:
    """The probability that the true value does not exceed a limit: `Φ(ln(limit / value) / sd)`; None without either."""
    if value is None or limit is None:
        return None
    return _normal(math.log(limit / value.value), _log_sd(value) ** 2)


def _log_sd(value: Range) -> float:
    """Standard deviation of the logarithm, from the 80 % range."""
    return math.log(value.high / value.low) / (2 * Z_80)


def _normal(distance: float, variance: float) -> float:
    """The probability that a normal variable lies within `distance` above its mean, or below; certain without variance."""
    if variance == 0.0:
        return 0.5 if distance == 0.0 else float(distance > 0)
    return 0.5 * (1 + math.erf(distance / math.sqrt(2 * variance)))
