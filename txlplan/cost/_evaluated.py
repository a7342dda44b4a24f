"""The candidates that share precision, checkpointing and threads, costed together as arrays.

What depends on the micro-batch alone (op stream, times, memory walk) is computed once per distinct micro-batch; data
parallelism and accumulation are applied on top, so that a hundred thousand plans cost little more than their arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._build import Settings, build
from txlplan.cost._communication import exchange_s
from txlplan.cost._memory import Peak, walk
from txlplan.cost._op_stream import FloatArray, OpStream
from txlplan.cost._reserved import cached_bytes, reserved_peak
from txlplan.cost._statics import Statics, statics
from txlplan.cost._time import StepTime, crowded_s, host_speed, step_time
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """Arrays named `*_s` and `*_bytes` are [candidates]; `column` leads from a candidate to its stream column."""

    stream: OpStream
    time: StepTime
    column: npt.NDArray[np.int64]
    accumulation: FloatArray
    data_parallel: FloatArray
    ranks_per_device: int
    """Processes that share one CPU; 1 elsewhere."""
    threads: int | None
    communication_s: FloatArray
    """All-reduce, hidden or not."""
    exposed_s: FloatArray
    crowded_s: FloatArray
    """What the host's processes slow each other."""
    unattributed_s: FloatArray
    """What whole steps take beyond their operations and dispatch."""
    step_s: FloatArray
    statics: Statics
    peak: Peak
    peak_memory_bytes: FloatArray
    allocator_waste_bytes: FloatArray

    def model_flops(self, place: int) -> float:
        """FLOPs of one step on one device, nothing recomputed."""
        column = self.column[place]
        total = self.stream.total(self.stream.flops, "forward", "backward", "update")[column]
        return float(total * self.accumulation[place])

    def busy_share(self, place: int) -> float:
        """Share of the step in which the device computes."""
        column, accumulation = self.column[place], self.accumulation[place]
        device_s = self.time.device_s
        busy_s = accumulation * (device_s["forward"] + device_s["backward"])[column] + device_s["update"][column]
        return float(busy_s / self.step_s[place])

    def measured_share(self, place: int) -> float:
        """Share of the device's time spent in operations of measured shapes."""
        column = self.column[place]
        seconds = self.time.op_s[:, column] * self.stream.repeat[:, column]
        return float((seconds * self.time.measured[:, column]).sum() / seconds.sum())


def evaluate(workload: Workload, cluster: Cluster, stack: StackProfile, plans: Sequence[Plan], *, ranks: int) -> Evaluated:
    """Cost plans that agree in everything but micro-batch, accumulation and data parallelism (`ranks` on each device)."""
    first = plans[0]
    micro_batch, column = np.unique([float(plan.micro_batch) for plan in plans], return_inverse=True)
    accumulation = np.array([float(plan.accumulation) for plan in plans])
    data_parallel = np.array([float(plan.data_parallel) for plan in plans])
    settings = Settings.of(workload, cluster.device, stack, first)
    stream = build(settings, micro_batch)
    threads = _threads(first, cluster, ranks)
    host = cluster.system.host
    time = step_time(stream, cluster.device, stack, threads, host_speed=host.relative_speed if host else 1.0)
    kept = statics(settings, micro_batch[column], accumulation, stack, cluster.device.kind)
    times = accumulation if stack.gradient_sync == "micro-batch" else np.ones(accumulation.shape)
    communication, exposed = exchange_s(kept.all_reduce_bytes, data_parallel, cluster, stack, time.region_s["backward"][column])
    regions = {name: values[column] for name, values in time.region_s.items()}
    computing_s = accumulation * (regions["forward"] + regions["backward"]) + regions["update"]
    crowded = _crowded_s(cluster, stack, time, column, accumulation, data_parallel)
    unattributed_s = stack.unattributed * computing_s
    if stack.reserved is not None and settings.task == "train":
        peak = reserved_peak(stream, column, settings, stack.reserved)
        live = peak.total_bytes + kept.live_bytes
        room = stack.reserved.ceiling * cluster.device.usable_bytes() - live - kept.context_bytes
        waste = np.minimum(cached_bytes(settings, stack.reserved), np.maximum(room, 0.0))
    else:
        peak = _peak(stream, column, accumulation, data_parallel)
        live = peak.total_bytes + kept.live_bytes
        waste = _waste_share(cluster, stack) * peak.total_bytes
    return Evaluated(
        stream=stream,
        time=time,
        column=column,
        accumulation=accumulation,
        data_parallel=data_parallel,
        ranks_per_device=ranks,
        threads=threads,
        communication_s=communication * times,
        exposed_s=exposed * times,
        crowded_s=crowded,
        unattributed_s=unattributed_s,
        step_s=computing_s + crowded + unattributed_s + exposed * times,
        statics=kept,
        peak=peak,
        peak_memory_bytes=live + waste + kept.context_bytes,
        allocator_waste_bytes=waste,
    )


def _crowded_s(
    cluster: Cluster,
    stack: StackProfile,
    time: StepTime,
    column: npt.NDArray[np.int64],
    accumulation: FloatArray,
    data_parallel: FloatArray,
) -> FloatArray:
    if stack.kernels is None or cluster.system.host is None:
        return np.zeros(accumulation.shape)
    slower = cluster.system.host.relative_speed / host_speed(cluster, data_parallel)
    added = crowded_s(time, column, stack.kernels, slower)
    return accumulation * (added["forward"] + added["backward"]) + added["update"]


_HEAP_WASTE = 0.9
"""Share of what comes and goes that a CPU's heap holds beside it, where a stack says nothing: with glibc 2.36 and torch
2.13, steady training steps of eight small models held 0.8 to 1.2 times the activations, gradients and transients more
than those (VmHWM less the process's context and what stays). Freed blocks below the moving mmap threshold stay mapped."""


def _waste_share(cluster: Cluster, stack: StackProfile) -> float:
    """Fragmentation: of what comes and goes within a step, since what stays is allocated once."""
    return stack.allocator_waste or (_HEAP_WASTE if cluster.device.kind == "cpu" else 0.0)


def _threads(plan: Plan, cluster: Cluster, ranks: int) -> int | None:
    """CPU threads of one process: the plan's, no more than its share of the cores; None for all of a device."""
    if cluster.device.kind != "cpu":
        return None
    share = max(cluster.device.cores // ranks, 1)
    return min(plan.threads or share, share)


def _peak(stream: OpStream, column: npt.NDArray[np.int64], accumulation: FloatArray, data_parallel: FloatArray) -> Peak:
    """The walk's peak per candidate: gradients grow in the first micro-batch and are there from the second on."""
    growing, existing = walk(stream, gradients_exist=False), walk(stream, gradients_exist=True)
    exist = (accumulation > 1) | (data_parallel > 1)

    def chosen(name: str) -> FloatArray:
        picked: FloatArray = np.where(exist, getattr(existing, name)[column], getattr(growing, name)[column])
        return picked

    return Peak(
        saved_bytes=chosen("saved_bytes"),
        gradient_bytes=chosen("gradient_bytes"),
        transient_bytes=chosen("transient_bytes"),
        row=chosen("row").astype(np.int64),
    )
