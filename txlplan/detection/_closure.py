"""What whole steps show and single operations do not: memory of a process, and how far the sum of operations is off."""

from __future__ import annotations

import math
from dataclasses import replace

from txlplan.cost import estimate
from txlplan.detection._worker import WorkerRun, Workers
from txlplan.hardware import Cluster, DeviceProfile, Spread, StackProfile, SystemProfile

_UNSTEADY = {"cpu": 0.3, "gpu": 0.37, "tpu": 0.3}
"""Of a logarithm: 1.35 times, on a GPU 1.45. The farthest step that was seen to tell of others took 1.32 times its operations
on a CPU, and 1.42 on a GPU, see below."""
_COMMON = 0.5
"""Share of what one small model's step misses, in logarithms, that others' miss too: by least squares 0.51 over three probes,
whose steps took 1.13, 1.20 and 1.25 times their operations, with 8 other models after each, half in bf16, that trained 1.08,
1.15 and 1.07 times as long as predicted in the mean (`benchmarks/cpu_accuracy.py`, 2 cores of an Intel Xeon with AMX,
torch 2.13, 2026-11-26). After two more, while others used the machine, they took 1.24 and 1.22 times as long. With products of
bf16 by tiles, which leave a step more to miss, 1.32 and 1.14 times as long: 0.46 (11 models, 2026-11-27). On an H200
1.42 and 1.20: 0.52 (10 runs by `txlplan bench` right after the probe, torch 2.11, 2026-11-27)."""
_NO_WASTE = 1e-9
"""As good as none: none at all would stand for "unknown"."""


def closed(
    system: SystemProfile, device: DeviceProfile, stack: StackProfile, workers: Workers
) -> tuple[StackProfile, tuple[str, ...]]:
    """The stack with what workers showed: memory of a process, its time besides its steps, heap waste, and how far the sum of
    operations is from a step.

    Steps that train are moved half way to what the worker's step took, and the range is wider by the rest; calibration to runs
    says more. Where it is so far off that the machine cannot have been the same meanwhile, nothing moves, and a note says so.
    """
    if workers.many is None:
        return stack, ()
    cluster = Cluster(system=system, device=device)
    worker_s = float(f"{workers.many.beside_s:.3g}")
    complete = replace(stack, worker_s=worker_s)
    if workers.single is not None:
        context_bytes, waste = _memory(cluster, stack, workers.single, workers.many)
        complete = replace(complete, context_bytes=context_bytes, allocator_waste=float(f"{waste:.4g}"))
    if workers.reading_single is not None and workers.reading_many is not None:
        context_bytes, waste = _memory(cluster, stack, workers.reading_single, workers.reading_many)
        complete = replace(complete, reading_context_bytes=context_bytes, reading_waste=float(f"{waste:.4g}"))
    residual = _log_residual(cluster, complete, workers.many)
    if abs(residual) > _UNSTEADY[device.kind]:
        return replace(complete, spread=_wider(complete.spread, residual, 0.0)), (_unsteady(residual),)
    moved = _COMMON * residual
    beyond = {**complete.unattributed_by_task, "train": float(f"{math.expm1(moved):.4g}")}
    return replace(complete, unattributed_by_task=beyond, spread=_wider(complete.spread, residual, moved)), ()


def _unsteady(residual: float) -> str:
    return (
        f"a whole step took {math.exp(residual):.2f} times its operations: the machine was not the same all along; "
        "`txlplan hardware probe` again when it is idle"
    )


def _memory(cluster: Cluster, stack: StackProfile, single: WorkerRun, many: WorkerRun) -> tuple[int, float]:
    """Context bytes c and waste w for which `c + live + w × transient` is the measured peak of both runs.

    `live` is all that the cost model counts as alive, `transient` the part of it that comes and goes within a step.
    """
    (live_1, transient_1), (live_n, transient_n) = (_counted(cluster, stack, run) for run in (single, many))
    beyond_1, beyond_n = single.peak_memory_bytes - live_1, many.peak_memory_bytes - live_n
    waste = max(_NO_WASTE, (beyond_n - beyond_1) / (transient_n - transient_1))
    return round(beyond_1 - waste * transient_1), waste


def _counted(cluster: Cluster, stack: StackProfile, run: WorkerRun) -> tuple[float, float]:
    """What the cost model counts as alive at the run's peak, and the part of it that waste is a share of."""
    one_byte = replace(stack, context_bytes=1, reading_context_bytes=None, reading_waste=None)
    none, full = (_peak(cluster, replace(one_byte, allocator_waste=share), run) for share in (_NO_WASTE, 1.0))
    return none, full - none


def _peak(cluster: Cluster, stack: StackProfile, run: WorkerRun) -> float:
    return float(estimate(run.workload, cluster, stack, [run.plan]).peak_memory_bytes[0])


def _log_residual(cluster: Cluster, stack: StackProfile, run: WorkerRun) -> float:
    predicted_s = float(estimate(run.workload, cluster, stack, [run.plan]).step_s[0])
    return math.log(run.step_s / predicted_s)


def _wider(spread: Spread | None, residual: float, moved: float) -> Spread | None:
    """What one small model is still off by, others may be off by."""
    if spread is None:
        return None
    sd = float(f"{math.hypot(spread.time_log_sd, residual - moved):.3g}")
    told = f"{spread.source}; a whole step of a small model took {math.exp(residual):.2f} times its operations and dispatch"
    return replace(spread, time_log_sd=sd, source=told)
