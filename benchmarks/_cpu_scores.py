"""Predictions of configurations beside what they took, and a table of them: for `cpu_accuracy.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from txlplan.cost import estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.records import Record

RAW, CORRECTED, MEMORY = "tokens/s", "tokens/s, drift corrected", "peak memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One configuration: what it took, the median of its repeats, and what it was predicted to take."""

    name: str
    task: str
    precision: str
    repeats: int
    tokens_per_s: float
    corrected_tokens_per_s: float
    """As it would have been at the speed that the fixed product had while probing."""
    peak_memory_bytes: float
    predicted_tokens_per_s: float
    predicted_peak_memory_bytes: float

    @property
    def errors(self) -> dict[str, float]:
        """Predicted over measured, less one."""
        return {
            RAW: self.predicted_tokens_per_s / self.tokens_per_s - 1,
            CORRECTED: self.predicted_tokens_per_s / self.corrected_tokens_per_s - 1,
            MEMORY: self.predicted_peak_memory_bytes / self.peak_memory_bytes - 1,
        }


def results(
    runs: Mapping[str, Sequence[tuple[Record, float]]], cluster: Cluster, stack: StackProfile, product_s: float
) -> list[Result]:
    """Of configurations by name, each with its records and how long the fixed product took about them; `product_s`: how long
    it took while probing. Those without a record are left out."""
    return [_result(name, several, cluster, stack, product_s) for name, several in runs.items() if several]


def _result(
    name: str, several: Sequence[tuple[Record, float]], cluster: Cluster, stack: StackProfile, product_s: float
) -> Result:
    record = several[0][0]
    predicted = estimate(record.workload, cluster, stack, [record.plan])
    speeds = [(each.tokens_per_s or 0.0, reference_s / product_s) for each, reference_s in several]
    return Result(
        name=name,
        task=record.workload.task,
        precision=record.plan.precision,
        repeats=len(several),
        tokens_per_s=median(speed for speed, _ in speeds),
        corrected_tokens_per_s=median(speed * slower for speed, slower in speeds),
        peak_memory_bytes=median(each.peak_memory_bytes or 0 for each, _ in several),
        predicted_tokens_per_s=float(predicted.tokens_per_s[0]),
        predicted_peak_memory_bytes=float(predicted.peak_memory_bytes[0]),
    )


def shown(title: str, found: Sequence[Result], apart: float | None) -> dict[str, Any]:
    """Print a table, and give mean absolute errors by group and every result."""
    repeats = "" if apart is None else f" (two repeats of a configuration lie {apart:.1%} apart, on average)"
    print(f"\n{title}{repeats}\n{'':14} {'':15} {'predicted':>12} {'measured':>12} {RAW:>9} {'corrected':>10} {MEMORY:>12}")
    for each in found:
        numbers = f"{each.predicted_tokens_per_s:12,.0f} {each.tokens_per_s:12,.0f}"
        errors = f"{each.errors[RAW]:+9.1%} {each.errors[CORRECTED]:+10.1%} {each.errors[MEMORY]:+12.1%}"
        print(f"{each.name:14} {each.task + ' ' + each.precision:15} {numbers} {errors}")
    groups = {
        label: {name: fmean(abs(each.errors[name]) for each in mine) for name in (RAW, CORRECTED, MEMORY)}
        for label, mine in _groups(found)
    }
    for label, means in groups.items():
        print(f"{'mean error, ' + label:56} {means[RAW]:8.1%} {means[CORRECTED]:10.1%} {means[MEMORY]:12.1%}")
    return {"mean errors": groups, "results": [asdict(each) | {"errors": each.errors} for each in found]}


def repeatability(runs: Mapping[str, Sequence[tuple[Record, float]]]) -> float | None:
    """How far two repeats of one configuration lie apart, |log| on average: no prediction can be nearer to them than half of
    that. None where nothing was run twice."""
    speeds = [[each.tokens_per_s or 0.0 for each, _ in several] for several in runs.values() if len(several) > 1]
    return fmean(abs(math.log(several[0] / several[1])) for several in speeds) if speeds else None


def _groups(found: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    if found:
        yield "all", list(found)
    for label in sorted({f"{each.task} {each.precision}" for each in found}):
        yield label, [each for each in found if f"{each.task} {each.precision}" == label]
