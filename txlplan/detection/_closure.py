"""Close the gap between the sum of single operations and a whole training step, as a small worker showed it."""

from __future__ import annotations

import math
from dataclasses import replace

from txlplan.cost import estimate
from txlplan.detection._worker import WorkerRun, Workers
from txlplan.hardware import Cluster, DeviceProfile, Spread, StackProfile, SystemProfile

_NO_WASTE = 1e-9
"""As good as none: none at all would stand for "unknown"."""


def closed(system: SystemProfile, device: DeviceProfile, stack: StackProfile, workers: Workers) -> StackProfile:
    """The stack with what workers showed: memory of an empty process, heap waste, and how far step times were off."""
    if workers.empty is None or workers.small is None:
        return stack
    cluster = Cluster(system=system, device=device)
    with_context = replace(stack, context_bytes=workers.empty.peak_memory_bytes, allocator_waste=_NO_WASTE)
    waste = _heap_waste(cluster, with_context, workers.small)
    complete = replace(with_context, allocator_waste=float(f"{waste:.4g}"))
    return replace(complete, spread=_wider(complete.spread, _log_residual(cluster, complete, workers.small)))


def _peak(cluster: Cluster, stack: StackProfile, run: WorkerRun) -> float:
    return float(estimate(run.workload, cluster, stack, [run.plan]).peak_memory_bytes[0])


def _heap_waste(cluster: Cluster, stack: StackProfile, run: WorkerRun) -> float:
    """The share that makes the estimate of the run's peak memory equal to the measured one."""
    none, full = _peak(cluster, stack, run), _peak(cluster, replace(stack, allocator_waste=1.0), run)
    return max(_NO_WASTE, (run.peak_memory_bytes - none) / (full - none))


def _log_residual(cluster: Cluster, stack: StackProfile, run: WorkerRun) -> float:
    predicted_s = float(estimate(run.workload, cluster, stack, [run.plan]).step_s[0])
    return math.log(run.step_s / predicted_s)


def _wider(spread: Spread | None, residual: float) -> Spread | None:
    if spread is None:
        return None
    sd = float(f"{math.hypot(spread.time_log_sd, residual):.3g}")
    told = f"{spread.source}; a whole step of a small model took {math.exp(residual):.2f} times the prediction"
    return replace(spread, time_log_sd=sd, source=told)
