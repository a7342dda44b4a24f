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
CROWDED_TIME_LOG_SD = 0.27
"""Added (in squares) where several processes share a CPU: two on two cores took 1.5 to 1.9 times as long a step while another
program used 0.8 of a core, and one process no longer than without it (three small models, Intel Xeon, torch 2.13, 2026-11-27).
Half of that, in logarithms."""


def time_log_sd(stack: StackProfile, *, extrapolated: bool, crowded: bool = False) -> float:
    """Standard deviation of log(measured / predicted) of times. `crowded`: several processes share a CPU.

    What a probe doubted is as if extrapolated.
    """
    beside, extrapolated = CROWDED_TIME_LOG_SD if crowded else 0.0, extrapolated or bool(stack.doubts)
    if extrapolated and stack.spread and stack.spread.extrapolated_time_log_sd is not None:
        return math.hypot(stack.spread.extrapolated_time_log_sd, beside)
    own = TIME_LOG_SD if stack.spread is None else stack.spread.time_log_sd
    return math.hypot(own, EXTRAPOLATED_TIME_LOG_SD if extrapolated else 0.0, beside)


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
