"""One record scored: what was predicted before the run beside what the run took."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.choices import Outcome
from txlplan.estimates import Range
from txlplan.records import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One quantity: its prediction, the 80 % interval, and the measurement, all in the quantity's SI unit."""

    predicted: float
    low: float
    high: float
    measured: float | None
    """None: not measured."""

    @property
    def relative_error(self) -> float | None:
        """predicted / measured − 1: above zero where the prediction was too high."""
        return self.predicted / self.measured - 1 if self.measured else None

    @property
    def inside(self) -> bool | None:
        """Whether the measurement lies in the interval."""
        return None if self.measured is None else self.low <= self.measured <= self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One record with an estimate."""

    id: str
    kind: str
    outcome: Outcome
    task: str
    model: str
    device: str
    n_devices: int
    precision: str
    stack: str
    """Id of the stack profile that the estimate used."""
    extrapolated: bool
    tokens_per_s: Scored
    peak_memory_bytes: Scored
    fits_predicted: bool
    fits_measured: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Unscored:
    """A record that cannot be scored, and why."""

    id: str
    reason: str


def score(record: Record) -> Row | Unscored:
    """Set a record's estimate beside its measurements."""
    estimate = record.estimate
    if record.outcome == "running":
        return Unscored(id=record.id, reason="still running")
    if estimate is None:
        return Unscored(id=record.id, reason="no estimate was made before the run")
    if record.outcome == "failed":
        return Unscored(id=record.id, reason=f"failed: {record.message}" if record.message else "failed")
    if not record.has_result:
        return Unscored(id=record.id, reason="ended before its first step")
    out_of_memory = record.outcome == "oom"
    return Row(
        id=record.id,
        kind=record.kind,
        outcome=record.outcome,
        task=record.workload.task,
        model=record.workload.model.id,
        device=record.device.id,
        n_devices=record.n_devices,
        precision=record.plan.precision,
        stack=estimate.stack,
        extrapolated=estimate.extrapolated,
        tokens_per_s=scored(estimate.tokens_per_s, None if out_of_memory else record.tokens_per_s),
        peak_memory_bytes=scored(estimate.peak_memory_bytes, None if out_of_memory else record.peak_memory_bytes),
        fits_predicted=estimate.fits,
        fits_measured=not out_of_memory,
    )


def scored(predicted: Range, measured: float | None) -> Scored:
    """A range beside what was measured."""
    return Scored(predicted=predicted.value, low=predicted.low, high=predicted.high, measured=measured)
