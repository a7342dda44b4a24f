"""Learning-rate schedules as a pure function of the step, so that resuming needs no state.

All warm up linearly from learning_rate / warmup_steps, then:

    constant       1
    linear         1 → floor over the steps that remain
    cosine         1 → floor along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)
    inverse-sqrt   sqrt(warmup / step), as in Vaswani et al. 2017 (arXiv:1706.03762) scaled to peak at 1
    exponential    decay_rate ^ (steps / cycle_steps)
    cyclic         1 → floor → 1, a triangle of cycle_steps (Smith 2017, arXiv:1506.01186)
"""

from __future__ import annotations

import math
from collections.abc import Callable

from txlplan.choices import Schedule
from txlplan.workload import Optimization


def factor(settings: Optimization, step: int, total_steps: int) -> float:
    """What learning_rate is multiplied by in the optimizer step that follows `step` finished ones (0 for the first).

    In (0, 1] while warming up, in [min_learning_rate / learning_rate, 1] after; beyond total_steps the last value holds.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    floor = min(1.0, settings.min_learning_rate / settings.learning_rate)
    length = max(1, total_steps - warmup)
    done = min(step, max(total_steps, warmup)) - warmup
    return max(floor, _DECAYS[settings.schedule](settings, done, length, floor))


def _constant(_settings: Optimization, _done: int, _length: int, _floor: float) -> float:
    return 1.0


def _linear(_settings: Optimization, done: int, length: int, floor: float) -> float:
    return floor + (1 - floor) * (1 - done / length)


def _cosine(_settings: Optimization, done: int, length: int, floor: float) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done / length))


def _inverse_sqrt(settings: Optimization, done: int, _length: int, _floor: float) -> float:
    warmup = max(1, settings.warmup_steps)
    return math.sqrt(warmup / (warmup + done))


def _exponential(settings: Optimization, done: int, _length: int, _floor: float) -> float:
    return float(settings.decay_rate ** (done / settings.cycle_steps))


def _cyclic(settings: Optimization, done: int, _length: int, floor: float) -> float:
    phase = (done % settings.cycle_steps) / settings.cycle_steps
    return floor + (1 - floor) * abs(1 - 2 * phase)


_Decay = Callable[[Optimization, int, int, float], float]
_DECAYS: dict[Schedule, _Decay] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse-sqrt": _inverse_sqrt,
    "exponential": _exponential,
    "cyclic": _cyclic,
}
