"""Measured runs as one array problem: what a kernel model predicts for all of them, in a few milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.calibration._peaks import Peaks
from txlplan.cost import Settings, build
from txlplan.cost._communication import all_reduce_s, memory_s, waits
from txlplan.cost._kernels import Prepared, kernel_s, prepare
from txlplan.cost._op_stream import FloatArray, OpStream
from txlplan.cost._statics import all_reduce_bytes
from txlplan.cost._time import REGIONS, crowding, overlapped
from txlplan.hardware import KernelModel, StackProfile, nearest_stack
from txlplan.validation import Published

_REGIONS = {**REGIONS, "accumulation": ("accumulation",)}
"""Of a step, with the gradients added that further micro-batches leave: they are of the update, as often as there are such."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Runs with a measured throughput. Arrays are [runs], or [all ops] where they say so."""

    runs: tuple[Published, ...]
    prepared: Prepared
    """Operations of every distinct stream on a distinct device, one stream after another."""
    stream: npt.NDArray[np.int64]
    """Which of the distinct streams a run executes."""
    bins: npt.NDArray[np.int64]
    """Stream × region of each operation, [all ops]."""
    repeat: FloatArray
    """[all ops]"""
    launches: FloatArray
    """Of one repetition, [all ops]."""
    dispatch: FloatArray
    """Dispatch time of one operation, over that of a kernel model: the stack's share over the host's speed."""
    lasting: FloatArray
    """Of steps over that of their operations and dispatch, as the stack states it (`unattributed`)."""
    accumulation: FloatArray
    tokens: FloatArray
    """Of one step."""
    latency_s: FloatArray
    """Of the all-reduce of a micro-batch: what does not depend on bandwidth, …"""
    transfer_s: FloatArray
    """… and what does, at the bus bandwidth of a large one."""
    memory_s: FloatArray
    """Of one access of memory for each byte of gradients."""
    waits: FloatArray
    """Of an exchange of gradients, in those of four devices; 0 where there is none."""
    measured: FloatArray
    """Tokens per second."""
    peaks: Peaks
    """Of memory."""

    @classmethod
    def of(cls, runs: Sequence[Published]) -> Problem:
        """From published runs; those without a throughput are left out."""
        kept = tuple(run for run in runs if run.tokens_per_s is not None)
        stacks = [run.stack(nearest_stack(run.stack_name)) for run in kept]
        keys = [_key(run, stack) for run, stack in zip(kept, stacks, strict=True)]
        distinct = {key: row for row, key in reversed(list(enumerate(keys)))}
        places = {key: place for place, key in enumerate(distinct)}
        streams = [_stream(kept[row], stacks[row]) for row in distinct.values()]
        parts = [
            prepare(stream, kept[row].cluster.device, stacks[row])
            for row, stream in zip(distinct.values(), streams, strict=True)
        ]
        links = np.array([_links(run, stack) for run, stack in zip(kept, stacks, strict=True)])
        return cls(
            runs=kept,
            prepared=Prepared.joined(parts),
            stream=np.array([places[key] for key in keys], dtype=np.int64),
            bins=np.concatenate([len(_REGIONS) * place + _regions(stream) for place, stream in enumerate(streams)]),
            repeat=np.concatenate([stream.repeat[:, 0] for stream in streams]),
            launches=np.concatenate([stream.dispatched[:, 0] for stream in streams]),
            dispatch=np.array([_dispatch(run, stack) for run, stack in zip(kept, stacks, strict=True)]),
            lasting=np.array([1 + stack.unattributed_of(run.workload.task) for run, stack in zip(kept, stacks, strict=True)]),
            accumulation=np.array([float(run.plan.accumulation) for run in kept]),
            tokens=np.array([float(run.plan.global_batch * run.workload.model.tgt_len) for run in kept]),
            latency_s=links[:, 0],
            transfer_s=links[:, 1],
            memory_s=links[:, 2],
            waits=(links[:, 1] > 0) * waits(np.array([float(run.plan.data_parallel) for run in kept])),
            measured=np.array([run.tokens_per_s for run in kept], dtype=float),
            peaks=Peaks.of(kept),
        )

    def tokens_per_s(self, kernels: KernelModel) -> FloatArray:
        """As `estimate` predicts it under stacks with this kernel model, [runs]."""
        op_s, _ = kernel_s(self.prepared, kernels)
        device_s, launches = self._by_region(op_s[:, 0]), self._by_region(self.launches)
        factors = np.array([1.0, kernels.host_backward, kernels.host_update, kernels.host_update])
        host_s: FloatArray = launches * kernels.host_op_s * self.dispatch[:, None] * factors
        device_s, host_s = self._with_update(device_s), self._with_update(host_s)
        region_s = overlapped(device_s, host_s, kernels.knee)
        exchange_s = self.latency_s + self.transfer_s / kernels.all_reduce + self.waits * kernels.all_reduce_wait_s
        exchange_s = exchange_s + kernels.all_reduce_traffic * self.memory_s
        region_s = self.lasting[:, None] * region_s
        step_s = self.accumulation * (region_s[:, 0] + region_s[:, 1] + exchange_s) + region_s[:, 2]
        return self.tokens / step_s

    def _with_update(self, figure: FloatArray) -> FloatArray:
        """`_REGIONS` as the regions of a step, [runs, 4] → [runs, 3]."""
        added = (self.accumulation - 1) * figure[:, 3]
        return np.column_stack([figure[:, :2], figure[:, 2] + added])

    def _by_region(self, figure: FloatArray) -> FloatArray:
        """Sums over the operations [all ops] of each run's regions, [runs, regions]."""
        size = len(_REGIONS) * (int(self.stream.max()) + 1)
        sums: FloatArray = np.bincount(self.bins, weights=figure * self.repeat, minlength=size).astype(float)
        return sums.reshape(-1, len(_REGIONS))[self.stream]


def _settings(run: Published, stack: StackProfile) -> Settings:
    return Settings.of(run.workload, run.cluster.device, stack, run.plan)


def _key(run: Published, stack: StackProfile) -> tuple[str, ...]:
    """Runs that agree in it execute one stream on one device."""
    return str(run.workload), str(run.plan.micro_batch), run.plan.precision, run.cluster.device.id, stack.id


def _stream(run: Published, stack: StackProfile) -> OpStream:
    return build(_settings(run, stack), np.array([float(run.plan.micro_batch)]))


def _regions(stream: OpStream) -> npt.NDArray[np.int64]:
    place = {phase: index for index, phases in enumerate(_REGIONS.values()) for phase in phases}
    return np.array([place[phase] for phase in stream.phases], dtype=np.int64)


def _dispatch(run: Published, stack: StackProfile) -> float:
    """Dispatch time of one operation of a run, over that of its kernel model."""
    host = run.cluster.system.host
    slower = crowding(run.cluster, stack, np.array([run.plan.n_devices]))
    return float(stack.host_share * slower[0]) / (1.0 if host is None else host.relative_speed)


def _links(run: Published, stack: StackProfile) -> tuple[float, float, float]:
    """Latency, transfer time and time of one access of memory of one exchange of all gradients."""
    if stack.gradient_sync == "none" or run.plan.data_parallel == 1:
        return 0.0, 0.0, 0.0
    one = np.ones(1)
    payload = all_reduce_bytes(_settings(run, stack)) * one
    ranks = one * run.plan.data_parallel
    latency = float(all_reduce_s(0.0 * one, ranks, run.cluster)[0])
    transfer = float(all_reduce_s(payload, ranks, run.cluster)[0]) - latency
    return latency, transfer, float(memory_s(payload, run.cluster)[0])
