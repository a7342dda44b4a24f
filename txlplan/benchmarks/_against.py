"""A benchmark against an earlier one: the change of each case, with a confidence interval, and what counts as slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.benchmarks._matrix import Case
from txlplan.benchmarks._summary import belongs
from txlplan.errors import InputError, RecordError
from txlplan.records import Record, Store

_DRAWS = 2_000
_SEED = 20_190_109
_CONFIDENCE = 0.95
_FEW_REPEATS = 3
"""With fewer repeats on a side, how much runs differ among themselves is hardly known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One case now and before. Changes are relative: −0.05 is five per cent fewer tokens per second."""

    case: Case
    change: float | None
    """Of the median throughput; None where one of the two sides has no finished repeat."""
    low: float | None
    """95 % interval of it."""
    high: float | None
    repeats_before: int
    repeats_now: int
    notes: tuple[str, ...]

    def slower_by(self, share: float) -> bool:
        """Slower by more than `share`, and surely slower: the interval lies below zero. A case that fails now is, too."""
        if self.repeats_before and not self.repeats_now:
            return True
        return self.change is not None and self.high is not None and self.change < -share and self.high < 0


def baseline(store: Store, name: str) -> list[Record]:
    """The finished repeats that a record's or a benchmark's id stands for. Raises RecordError where there is none."""
    family = store.list(parent=name)
    records = family or [store.get(name)]
    good = [record for record in records if record.outcome == "ok" and record.steady_steps()]
    if not good:
        raise RecordError(f"{name}: no finished run with timed steps to compare with", hint="`txlplan records list` shows all")
    return good


def changes(cases: Sequence[Case], now: Sequence[Record], before: Sequence[Record]) -> tuple[Change, ...]:
    """Each case that was measured before, now. Cases are paired: same model, same plan, same task.

    Raises InputError when no case was measured before.
    """
    found = []
    for case in cases:
        earlier = [record for record in before if belongs(record, case)]
        later = [record for record in now if belongs(record, case) and record.outcome == "ok" and record.steady_steps()]
        task = next((record.workload.task for record in now if belongs(record, case)), None)
        earlier = [record for record in earlier if task is None or record.workload.task == task]
        if earlier:
            found.append(_change(case, later, earlier))
    if not found:
        raise InputError("none of these cases was measured before", hint="compare with a benchmark of the same model and plans")
    return tuple(found)


def _change(case: Case, now: Sequence[Record], before: Sequence[Record]) -> Change:
    value = low = high = None
    if now:
        value, low, high = _interval(_steps(now), _steps(before))
    return Change(
        case=case, change=value, low=low, high=high, repeats_before=len(before), repeats_now=len(now), notes=_notes(now, before)
    )


def _steps(records: Sequence[Record]) -> list[npt.NDArray[np.float64]]:
    return [np.array(record.steady_steps()) for record in records]


def _interval(now: Sequence[npt.NDArray[np.float64]], before: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float, float]:
    """Relative change of the throughput, and its interval.

    A side's step time is the median of its repeats' medians; tokens a step are equal, so throughput goes with the inverse.
    The interval is a two-level bootstrap: repeats are drawn with replacement, and the steps of each drawn repeat again.
    """
    source = np.random.default_rng(_SEED)
    sides = [np.median([np.median(steps) for steps in side]) for side in (before, now)]
    drawn = [_bootstrap(side, source) for side in (before, now)]
    ratios = drawn[0] / drawn[1] - 1
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(sides[0] / sides[1] - 1), float(low), float(high)


def _bootstrap(side: Sequence[npt.NDArray[np.float64]], source: np.random.Generator) -> npt.NDArray[np.float64]:
    """Step times of a side, drawn anew, [draws]."""
    medians = np.array(
        [np.median(source.choice(steps, size=(_DRAWS, len(steps))), axis=1) for steps in side]
    )  # [repeats, draws]
    shape = (len(side), _DRAWS)
    picked = medians[source.integers(len(side), size=shape), source.integers(_DRAWS, size=shape)]
    return np.asarray(np.median(picked, axis=0), dtype=np.float64)


def _notes(now: Sequence[Record], before: Sequence[Record]) -> tuple[str, ...]:
    notes = []
    if min(len(now), len(before)) < _FEW_REPEATS:
        notes.append(f"{len(before)} repeats before and {len(now)} now: the interval holds little of how runs differ")
    devices = {record.device.name for record in before} ^ {record.device.name for record in now}
    if now and devices:
        notes.append("measured on different devices")
    return tuple(notes)
