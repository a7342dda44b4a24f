"""Timing that survives a noisy machine: explicit warm-up, interleaved rounds, the median of what was seen.

A run's throughput is its tokens over all of its time, with whatever disturbs it; what is quickest in a few rounds promises too
much (10 to 20 % on two cores of a shared server, where half of the rounds lie so far above the lower quartile).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

_SAMPLE_S = 0.004
"""A sample repeats its work for at least this long, 10,000 times the clock's resolution."""
_MAX_ROUNDS = 12
_SELDOM = 3
"""In one round of so many, what is seldom wanted is timed."""

_HELD_UP = 1.5
"""Times as long as another sample: two rounds of a probe lie 20 % apart at single operations, in the median 10 (2 cores of a
shared EPYC, 2026-11-27)."""

Work = Callable[[], None]
Progress = Callable[[str, float], None]
"""Takes what is being done and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Times of one call, one a round, in the order of the rounds; at least one."""

    times_s: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median; of an even number the mean of both in the middle, but the lower where one was held up."""
        low_s, high_s = statistics.median_low(self.times_s), statistics.median_high(self.times_s)
        return low_s if high_s > _HELD_UP * low_s else (low_s + high_s) / 2

    def of_one(self, calls: int) -> Sample:
        """Where each time was that of so many calls."""
        return Sample(tuple(seconds / calls for seconds in self.times_s))


def scatter(samples: Sequence[Sample]) -> float:
    """Standard deviation of log(sum of the samples) over the rounds: how a machine drifts; 0 where there was but one."""
    rounds = min(len(sample.times_s) for sample in samples)
    totals = [math.log(sum(sample.times_s[index] for sample in samples)) for index in range(rounds)]
    return statistics.stdev(totals) if rounds > 1 else 0.0


def nothing() -> None:
    """A CPU has nothing to wait for."""


def time_call(work: Work, synchronize: Work, sample_s: float = _SAMPLE_S) -> float:
    """Seconds of one call: the mean over calls that together last `sample_s`; a device is waited for ever less often."""
    calls, together, start = 0, 1, time.perf_counter()
    while True:
        for _ in range(together):
            work()
        calls += together
        synchronize()
        elapsed = time.perf_counter() - start
        if elapsed >= sample_s:
            return elapsed / calls
        together *= 1 if synchronize is nothing else 2


def time_in_rounds(
    builders: Sequence[Callable[[], Work]],
    synchronize: Work,
    budget_s: float,
    progress: Progress | None = None,
    *,
    always: int = 0,
    seldom: Collection[int] = (),
) -> list[Sample | None]:
    """Time each builder's work, one sample each a round, as many rounds as the budget allows.

    Work is built anew for each sample and called once before it is timed, so that its memory is held only meanwhile. What
    the first round does not reach within the budget stays None, but for the first `always`. Those at places that are `seldom`
    wanted are timed in every third round.
    """
    times: list[list[float]] = [[] for _ in builders]
    start = time.perf_counter()
    for done in range(_MAX_ROUNDS):
        for index, build in enumerate(builders):
            if index in seldom and done % _SELDOM:
                continue
            spent = (time.perf_counter() - start) / budget_s
            if spent > 1 and (done or index >= always):
                return _samples(times)
            if progress is not None:
                progress(f"round {done + 1} of at most {_MAX_ROUNDS}", spent)
            times[index].append(_one_sample(build(), synchronize))
    return _samples(times)


def _samples(times: Sequence[Sequence[float]]) -> list[Sample | None]:
    return [Sample(tuple(each)) if each else None for each in times]


def _one_sample(work: Work, synchronize: Work) -> float:
    """Seconds of one call after a warm-up call, however long that took: it may have loaded code, or grown the heap."""
    time_call(work, synchronize, sample_s=0.0)
    return time_call(work, synchronize)
