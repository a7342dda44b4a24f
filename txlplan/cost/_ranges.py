"""The 80 % interval of an estimate: log-normal, from the residuals of the calibration behind it."""

from __future__ import annotations

import math

from txlplan.estimates import Range
from txlplan.hardware import StackProfile

Z_80 = 1.2816
"""Normal quantile that leaves 10 % on each side."""
TIME_LOG_SD = 0.35
"""Assumed where a stack states no spread: published step times of one device under two stacks lie up to 2.25× apart."""
MEMORY_LOG_SD = 0.12
"""Assumed where a stack states no spread."""
EXTRAPOLATED_TIME_LOG_SD = 0.25
"""Added (in squares) when the figures come from another device or from beyond the measured shapes."""
EXTRAPOLATED_MEMORY_LOG_SD = 0.08


def time_log_sd(stack: StackProfile, *, extrapolated: bool) -> float:
    """Standard deviation of log(measured / predicted) of times."""
    if extrapolated and stack.spread and stack.spread.extrapolated_time_log_sd is not None:
        return stack.spread.extrapolated_time_log_sd
    own = TIME_LOG_SD if stack.spread is None else stack.spread.time_log_sd
    return math.hypot(own, EXTRAPOLATED_TIME_LOG_SD) if extrapolated else own


def memory_log_sd(stack: StackProfile, *, extrapolated: bool) -> float:
    """Standard deviation of log(measured / predicted) of peak memory."""
    if extrapolated and stack.spread and stack.spread.extrapolated_memory_log_sd is not None:
        return stack.spread.extrapolated_memory_log_sd
    own = MEMORY_LOG_SD if stack.spread is None else stack.spread.memory_log_sd
    return math.hypot(own, EXTRAPOLATED_MEMORY_LOG_SD) if extrapolated else own


def interval(value: float, log_sd: float) -> Range:
    """The value and its 80 % interval, `value · exp(± 1.2816 · log_sd)`."""
    factor = math.exp(Z_80 * log_sd)
    return Range(value=value, low=value / factor, high=value * factor)
