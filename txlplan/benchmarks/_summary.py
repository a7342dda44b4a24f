"""Repeats summed up: median, spread, and the prediction beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from txlplan.benchmarks._matrix import Case
from txlplan.records import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Repeats of one quantity."""

    median: float
    mad: float
    """Median absolute deviation from the median."""
    iqr: float | None
    """Distance of the quartiles; None for fewer than two repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One case of the table."""

    model: str
    case: Case
    repeats: int
    """That ended well."""
    failed: int
    outcome: str
    """`ok`, or that of the first repeat which failed."""
    message: str
    tokens_per_s: Spread | None
    step_s: Spread | None
    peak_memory_bytes: Spread | None
    predicted_tokens_per_s: float | None
    predicted_peak_memory_bytes: float | None

    @property
    def tokens_error(self) -> float | None:
        """Predicted over measured, less one."""
        return _error(self.predicted_tokens_per_s, self.tokens_per_s)

    @property
    def memory_error(self) -> float | None:
        """Predicted over measured, less one."""
        return _error(self.predicted_peak_memory_bytes, self.peak_memory_bytes)


def spread(values: Sequence[float]) -> Spread | None:
    """Median and spread of repeats; None where there are none."""
    if not values:
        return None
    middle = median(values)
    quartiles = quantiles(values, n=4, method="inclusive") if len(values) > 1 else None
    return Spread(
        median=middle,
        mad=median(abs(value - middle) for value in values),
        iqr=quartiles[2] - quartiles[0] if quartiles else None,
    )


def belongs(record: Record, case: Case) -> bool:
    """Whether a record is a repeat of this case."""
    return record.plan == case.plan and record.workload.model == case.model


def summarise(cases: Sequence[Case], records: Sequence[Record]) -> tuple[Row, ...]:
    """One row a case, in the order of `cases`."""
    return tuple(_row(case, [record for record in records if belongs(record, case)]) for case in cases)


def _row(case: Case, records: Sequence[Record]) -> Row:
    good = [record for record in records if record.outcome == "ok"]
    bad = [record for record in records if record.outcome in ("oom", "failed")]
    estimate = next((record.estimate for record in records if record.estimate), None)
    return Row(
        model=case.model.id,
        case=case,
        repeats=len(good),
        failed=len(bad),
        outcome="ok" if good and not bad else bad[0].outcome if bad else "not run",
        message=bad[0].message if bad else "",
        tokens_per_s=spread([record.tokens_per_s for record in good if record.tokens_per_s is not None]),
        step_s=spread([median(record.steady_steps()) for record in good if record.steady_steps()]),
        peak_memory_bytes=spread([record.peak_memory_bytes for record in good if record.peak_memory_bytes is not None]),
        predicted_tokens_per_s=estimate.tokens_per_s.value if estimate else None,
        predicted_peak_memory_bytes=estimate.peak_memory_bytes.value if estimate else None,
    )


def _error(predicted: float | None, measured: Spread | None) -> float | None:
    return None if predicted is None or measured is None or measured.median == 0 else predicted / measured.median - 1
