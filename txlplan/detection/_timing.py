"""Timing that survives a noisy machine: explicit warm-up, interleaved rounds, the lower quartile of what was seen.

Noise only ever adds time, and a training step that is measured later is disturbed as the quieter rounds were; so the
lower quartile over rounds is taken, and the spread of the rounds below their median is kept as the scatter.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SAMPLE_S = 0.004
"""A sample repeats its work for at least this long, 10,000 times the clock's resolution."""
_LONG_S = 0.25
"""A call that takes this long is not repeated in the same round."""
_MAX_ROUNDS = 12

Work = Callable[[], None]
Progress = Callable[[str, float], None]
"""Takes what is being done and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Time of one call over several rounds."""

    seconds: float
    """Lower quartile."""
    log_sd: float
    """Scatter of log(time) over the faster half of the rounds, as a standard deviation."""
    rounds: int


def quiet_time(times_s: Sequence[float]) -> Sample:
    """Summarise the times of several rounds (at least one)."""
    ordered = sorted(times_s)
    quick = ordered[: max(2, math.ceil(len(ordered) / 2))]
    scatter = statistics.stdev(math.log(value) for value in quick) if len(quick) > 1 else 0.0
    return Sample(seconds=ordered[(len(ordered) - 1) // 4], log_sd=scatter, rounds=len(ordered))


def time_call(work: Work, synchronize: Work, sample_s: float = _SAMPLE_S) -> float:
    """Seconds of one call: the mean over calls that together last `sample_s`."""
    calls, start = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        synchronize()
        elapsed = time.perf_counter() - start
        if elapsed >= sample_s:
            return elapsed / calls


def time_in_rounds(
    builders: Sequence[Callable[[], Work]], synchronize: Work, budget_s: float, progress: Progress | None = None
) -> list[Sample | None]:
    """Time each builder's work, one sample each a round, as many rounds as the budget allows.

    Work is built anew for each sample and called once before it is timed, so that its memory is held only meanwhile. What
    the first round does not reach within the budget stays None.
    """
    times: list[list[float]] = [[] for _ in builders]
    start = time.perf_counter()
    for done in range(_MAX_ROUNDS):
        for index, build in enumerate(builders):
            spent = (time.perf_counter() - start) / budget_s
            if spent > 1:
                return [quiet_time(each) if each else None for each in times]
            if progress is not None:
                progress(f"round {done + 1} of at most {_MAX_ROUNDS}", spent)
            times[index].append(_one_sample(build(), synchronize))
    return [quiet_time(each) for each in times]


def _one_sample(work: Work, synchronize: Work) -> float:
    """Seconds of one call after a warm-up call; of the warm-up call itself where that took long enough to be exact."""
    warm_up_s = time_call(work, synchronize, sample_s=0.0)
    return warm_up_s if warm_up_s > _LONG_S else time_call(work, synchronize)
