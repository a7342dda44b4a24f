"""Time of operations on one device, and of the regions of a step.

An operation takes `max(flops / (peak × share), bytes / (bandwidth × share))` plus a launch. A region (forward, backward,
update) takes `max(host dispatch, device)` where host and device work side by side, and their sum on a CPU, where they
are the same cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._efficiency import PRODUCTS, EfficiencyModel
from txlplan.cost._kernels import kernel_s, prepare
from txlplan.cost._op_stream import FloatArray, OpStream, Phase
from txlplan.hardware import Cluster, DeviceProfile, KernelModel, StackProfile

REGIONS: dict[str, tuple[Phase, ...]] = {
    "forward": ("forward",),
    "backward": ("recompute", "backward"),
    "update": ("update",),
}
"""Regions of a step, each ended by a synchronisation of host and device."""
_HOST_OP_S = 8e-6
"""Eager dispatch of one operation where a stack does not say: 5–10 us in torch 2 on server CPUs of 2017–2024."""
_LAUNCH_S = {"gpu": 2.5e-6, "tpu": 1e-6, "cpu": 0.0}
"""Back-to-back kernel launch where a stack does not say (te42kyfo/gpu-benches gpu-small-kernels: 2.1–2.6 us)."""
_CPU_DRAW_S = 1.0e-9
"""Random bits for one element of a dropout mask on a CPU: torch draws 64 bits at a time on one thread whatever the number
of threads, a quarter of which serve one element (torch 2.13 on an AMD EPYC Zen 3: 4.0 ns a draw)."""
_LEAST_SHARE = 1e-6
"""Operations that move nothing reach no share of a bandwidth; they take no time either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Times of one stream: per operation [ops, candidates] for one repetition, per region [candidates]."""

    op_s: FloatArray
    compute_bound: npt.NDArray[np.bool_]
    measured: npt.NDArray[np.bool_]
    device_s: dict[str, FloatArray]
    host_s: dict[str, FloatArray]
    region_s: dict[str, FloatArray]


def step_time(
    stream: OpStream, device: DeviceProfile, stack: StackProfile, threads: int | None = None, *, host_speed: float = 1.0
) -> StepTime:
    """Time every operation of one micro-batch and one update on `device`; nothing between devices is counted here.

    `host_speed` is that of the host's core, relative to the one that a stack's fitted kernel model is for.
    """
    if stack.kernels is not None:
        return _fitted(stream, device, stack, stack.kernels, host_speed)
    op_s, compute_bound, measured = _op_times(stream, device, stack, threads)
    device_s = {region: stream.total(op_s, *phases) for region, phases in REGIONS.items()}
    host_s = {region: stream.total(stream.launches, *phases) * _dispatch_s(stack, region) for region, phases in REGIONS.items()}
    together = np.add if device.kind == "cpu" else np.maximum
    region_s = {region: together(device_s[region], host_s[region]) for region in REGIONS}
    return StepTime(
        op_s=op_s, compute_bound=compute_bound, measured=measured, device_s=device_s, host_s=host_s, region_s=region_s
    )


def _fitted(stream: OpStream, device: DeviceProfile, stack: StackProfile, kernels: KernelModel, host_speed: float) -> StepTime:
    """By the stack's kernel model; host and device overlap as it says."""
    op_s, compute_bound = kernel_s(prepare(stream, device, stack), kernels)
    dispatch = dispatch_s(kernels, stack, host_speed)
    device_s = {region: stream.total(op_s, *phases) for region, phases in REGIONS.items()}
    host_s = {region: stream.total(stream.launches, *phases) * dispatch[region] for region, phases in REGIONS.items()}
    return StepTime(
        op_s=op_s,
        compute_bound=compute_bound,
        measured=np.zeros(op_s.shape, dtype=bool),
        device_s=device_s,
        host_s=host_s,
        region_s={region: overlapped(device_s[region], host_s[region], kernels.knee) for region in REGIONS},
    )


def host_speed(cluster: Cluster, data_parallel: FloatArray) -> FloatArray:
    """Relative speed of a host's core when it serves so many processes, [candidates]."""
    host = cluster.system.host
    if host is None:
        return np.ones(data_parallel.shape)
    busy = np.minimum(data_parallel, cluster.per_node)
    share = np.log(busy) / np.log(max(cluster.system.n_devices, 2))
    speed: FloatArray = host.relative_speed * host.crowded_speed**share
    return speed


def crowded_s(time: StepTime, column: npt.NDArray[np.int64], kernels: KernelModel, slower: FloatArray) -> dict[str, FloatArray]:
    """Time by region that a host adds which dispatches `slower` times slower than in `time`, [candidates]."""
    return {
        region: overlapped(device_s[column], time.host_s[region][column] * slower, kernels.knee) - time.region_s[region][column]
        for region, device_s in time.device_s.items()
    }


def dispatch_s(kernels: KernelModel, stack: StackProfile, host_speed: float) -> dict[str, float]:
    """Dispatch of one operation by region, under a stack's kernel model and on a host of relative speed `host_speed`."""
    forward = kernels.host_op_s * stack.host_share / host_speed
    return {"forward": forward, "backward": forward * kernels.host_backward, "update": forward * kernels.host_update}


def overlapped(device_s: FloatArray, host_s: FloatArray, knee: float) -> FloatArray:
    """(d^knee + h^knee)^(1/knee): the longer of both where they differ, more than it where they are alike."""
    longer = np.maximum(np.maximum(device_s, host_s), 1e-12)
    both: FloatArray = longer * ((device_s / longer) ** knee + (host_s / longer) ** knee) ** (1 / knee)
    return np.where(device_s + host_s > 0, both, 0.0)


def peak_flops_per_s(device: DeviceProfile, dtype: str) -> float:
    """Peak of a dtype; a device without units for it computes in fp32, or in the slowest dtype that it has."""
    return device.peak(dtype) or device.peak("fp32") or min(device.peak_flops_per_s.values())


def _dispatch_s(stack: StackProfile, region: str) -> float:
    forward = _HOST_OP_S if stack.host_op_s is None else stack.host_op_s
    backward = stack.host_backward_op_s
    return backward if region == "backward" and backward is not None else forward


def _op_times(
    stream: OpStream, device: DeviceProfile, stack: StackProfile, threads: int | None
) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    efficiency = EfficiencyModel(device, stack, threads)
    launch_s = _LAUNCH_S[device.kind] if stack.launch_s is None else stack.launch_s
    draw_s = _CPU_DRAW_S if device.kind == "cpu" else 0.0
    op_s = np.empty_like(stream.flops)
    compute_bound = np.zeros(op_s.shape, dtype=bool)
    measured = np.zeros(op_s.shape, dtype=bool)
    for row, kind in enumerate(stream.kinds):
        is_product = kind in PRODUCTS
        work = stream.flops[row] if is_product else stream.bytes_moved[row]
        per_call = work / np.maximum(stream.launches[row], 1.0)
        reached = efficiency.utilisation(kind, stream.dtypes[row], per_call, stream.m[row], stream.n[row], stream.k[row])
        streaming_s = stream.bytes_moved[row] / device.memory_bandwidth_bytes_per_s
        if is_product:
            computing_s = work / (peak_flops_per_s(device, stream.dtypes[row]) * reached.share)
            streaming_s = np.where(_spills(stream.bytes_moved[row], device, reached.measured), streaming_s, 0.0)
            compute_bound[row] = computing_s >= streaming_s
            op_s[row] = np.maximum(computing_s, streaming_s)
        else:
            op_s[row] = streaming_s / np.maximum(reached.share, _LEAST_SHARE)
        op_s[row] += stream.launches[row] * launch_s + stream.draws[row] * draw_s
        measured[row] = reached.measured
    return op_s, compute_bound, measured


def _spills(bytes_moved: FloatArray, device: DeviceProfile, measured: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether memory bandwidth bounds a product: its operands exceed the cache, and no measurement says what it reaches."""
    return ~measured & (bytes_moved > (device.cache_bytes or 0))
