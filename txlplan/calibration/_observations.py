"""What a stack is calibrated on: what runs took, one observation for each workload and plan."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from txlplan.cost import estimate
from txlplan.errors import InputError, TxlplanError
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.records import Record
from txlplan.validation._published import Published, Unreadable
from txlplan.workload import Workload

FEWEST = 4
"""Distinct observations; each left out beside three others at least."""
UNSTABLE = 0.15
"""Quartile spread of a run's step times over their median, above which it says nothing."""
_FEWEST_STEPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one workload under one plan took on one cluster."""

    id: str
    workload: Workload
    cluster: Cluster
    plan: Plan
    tokens_per_s: float
    peak_memory_bytes: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Observations:
    """What can be used, and how many were not, by reason."""

    used: tuple[Observation, ...]
    left_aside: dict[str, int]


def from_records(records: Iterable[Record], cluster: Cluster, stack: str) -> Observations:
    """Runs that ended well, of this system under this stack; repeats of one plan become their median."""
    groups: dict[tuple[str, str], list[Record]] = {}
    aside: Counter[str] = Counter()
    for record in records:
        if reason := _unusable(record, cluster, stack):
            aside[reason] += 1
        else:
            groups.setdefault((str(record.workload), str(record.plan)), []).append(record)
    return Observations(used=tuple(_median(group, cluster) for group in groups.values()), left_aside=dict(aside))


def from_published(runs: Iterable[Published | Unreadable], cluster: Cluster, stack: str) -> Observations:
    """Rows of a CSV file that name this device and stack."""
    used: list[Observation] = []
    aside: Counter[str] = Counter()
    for run in runs:
        if isinstance(run, Unreadable):
            aside["unreadable"] += 1
        elif run.stack_name != stack or run.cluster.device.id != cluster.device.id:
            aside["another stack or device"] += 1
        elif run.tokens_per_s is None:
            aside["without a measured throughput"] += 1
        else:
            used.append(
                Observation(
                    id=run.id,
                    workload=run.workload,
                    cluster=run.cluster,
                    plan=run.plan,
                    tokens_per_s=run.tokens_per_s,
                    peak_memory_bytes=run.peak_memory_bytes,
                )
            )
    return Observations(used=tuple(used), left_aside=dict(aside))


def enough(found: Observations, stack: str, device: str) -> None:
    """Raise InputError that counts what was left aside where fewer than `FEWEST` are left."""
    if len(found.used) >= FEWEST:
        return
    aside = ", ".join(f"{count} {reason}" for reason, count in found.left_aside.items())
    raise InputError(
        f"{len(found.used)} usable observations of stack {stack} on {device}: a fit needs {FEWEST} of different shapes"
        + (f" (left aside: {aside})" if aside else ""),
        hint="`txlplan bench` makes them: several models or micro-batches, run one after another",
    )


def _unusable(record: Record, cluster: Cluster, stack: str) -> str:
    if record.outcome != "ok":
        return "that did not end well"
    if record.stack != stack:
        return "of another stack"
    if record.device.name != cluster.device.name:
        return "of another device"
    if record.tokens_per_s is None or len(record.steady_steps()) < _FEWEST_STEPS:
        return "with too few steps"
    return "unstable" if _unrest(record.steady_steps()) > UNSTABLE else ""


def _unrest(steps: tuple[float, ...]) -> float:
    low, middle, high = statistics.quantiles(steps, n=4, method="inclusive")
    return (high - low) / middle


def _median(group: list[Record], cluster: Cluster) -> Observation:
    first = group[0]
    peaks = [record.peak_memory_bytes for record in group if record.peak_memory_bytes]
    return Observation(
        id=first.id,
        workload=first.workload,
        cluster=cluster,
        plan=first.plan,
        tokens_per_s=statistics.median(record.tokens_per_s or 0.0 for record in group),
        peak_memory_bytes=statistics.median(peaks) if peaks else None,
    )


def predicted(observation: Observation, stack: StackProfile) -> tuple[float, float]:
    """Tokens per second and peak bytes of an observation under a stack. Raises InputError where it cannot be costed."""
    try:
        found = estimate(observation.workload, observation.cluster, stack, [observation.plan])
    except TxlplanError as error:
        raise InputError(f"{observation.id} cannot be estimated: {error.message}", hint=error.hint) from None
    return float(found.tokens_per_s[0]), float(found.peak_memory_bytes[0])
