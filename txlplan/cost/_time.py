"""Time of operations on one device, and of the regions of a step.

An operation takes `max(flops / (peak × share), bytes / (bandwidth × share))` plus a launch; compiled sums take some of the
shorter one too. A region (forward, backward, update) takes what is longer of host dispatch and device, and more than it where
they are alike; their sum on a CPU, where they are the same cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from txlplan.cost._efficiency import EfficiencyModel
from txlplan.cost._kernels import kernel_s, prepare
from txlplan.cost._op_stream import FloatArray, OpStream, Phase, summed
from txlplan.cost._ring import STREAMED, meetings, reads_tokens
from txlplan.cost._token_reading import read_s_per_byte, sums_knee, token_readings
from txlplan.hardware import PRODUCTS, Cluster, DeviceProfile, KernelModel, StackProfile

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
"""Random bits for one element of a dropout mask on a CPU, where a stack has not measured them: torch draws 64 bits at a time
on one thread whatever the number of threads, a quarter of which serve one element (torch 2.13 on an AMD EPYC Zen 3: 4.0 ns a
draw)."""
_MEETING_S = 0.5e-6
"""How long a CPU's threads take to wait for each other, and to begin what follows, where a stack does not say: 2.5 to 2.8 us
for the five times of a layer of width 16, 1.6 to 1.9 with one thread (2 cores of an Intel Xeon with AMX, torch 2.13,
2026-11-27). More cores take longer."""
_KNEES = {"cpu": 1.0, "gpu": 3.452, "tpu": np.inf}
"""How host and device overlap where a stack has no kernel model: on a CPU they are the same cores; on a GPU as 165 published
runs show it (profiles/stacks/nvidia-20.06-eager.toml); a TPU's step is one program."""
_LEAST_SHARE = 1e-6
"""Operations that move nothing reach no share of a bandwidth; they take no time either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Times of the operations of one stream on one device, and how regions are made of them."""

    op_s: FloatArray
    """Of one repetition, [ops, candidates]."""
    compute_bound: npt.NDArray[np.bool_]
    measured: npt.NDArray[np.bool_]
    dispatch_s: dict[str, float]
    """Host time of one operation, by region."""
    knee: float
    """How host and device overlap, see `overlapped`: infinite for the longer of both, 1 for their sum."""

    def region_s(self, region: str, device_s: FloatArray, launches: FloatArray, slower: FloatArray | float = 1.0) -> FloatArray:
        """Time of a region in which the device computes so long and the host dispatches so many operations, `slower` times
        slower than the host that the stream was timed for."""
        host_s = launches * (self.dispatch_s[region] * slower)
        if self.knee == 1.0:
            return device_s + host_s
        return overlapped(device_s, host_s, self.knee)


def step_time(
    stream: OpStream, device: DeviceProfile, stack: StackProfile, threads: int | None = None, *, host_speed: float = 1.0
) -> StepTime:
    """Time every operation of one micro-batch and one update on `device`; nothing between devices is counted here.

    `host_speed` is that of the host's core, relative to the one that a stack's fitted kernel model is for.
    """
    return step_times([stream], device, stack, threads, host_speed=host_speed)[0]


def step_times(
    streams: Sequence[OpStream],
    device: DeviceProfile,
    stack: StackProfile,
    threads: int | None = None,
    *,
    host_speed: float = 1.0,
) -> list[StepTime]:
    """The same of several streams, whose operations of a kind are timed together."""
    if stack.kernels is not None:
        return [_by_kernels(stream, device, stack, stack.kernels, host_speed) for stream in streams]
    found = []
    for stream, (op_s, compute_bound, measured) in zip(streams, _op_times(streams, device, stack, threads), strict=True):
        if reads_tokens(stream):
            op_s = _fed(stream, op_s)
        reading = "backward" not in stream.phases
        dispatch = {region: eager_dispatch_s(stack, region, reading=reading) for region in REGIONS}
        token_s = _token_op_s(stream, stack, threads or device.cores)
        if token_s is not None:
            dispatch["forward"] = float(token_s.min())
            op_s = op_s + stream.dispatched * (token_s - token_s.min())
        knee = _KNEES[device.kind]
        found.append(StepTime(op_s=op_s, compute_bound=compute_bound, measured=measured, dispatch_s=dispatch, knee=knee))
    return found


def _fed(stream: OpStream, op_s: FloatArray) -> FloatArray:
    """Where products of tokens wait for what no cache holds: of that what it takes longer together, by root of the sum of
    squares.

    A CPU asks for a weight while it multiplies by what is there. Products of 1, 5 and 13 rows with 117, 216 and 94 MB of
    weights took 12.5, 34.9 and 21.8 ms within a token, and 13.0, 33.4 and 22.2 one by one; to read those took 5.0, 9.6, 4.4
    (`benchmarks/cpu_products.py within`, 2 cores of an AMD EPYC (Zen 3) with 32 MiB of cache, torch 2.13, 2026-11-27).
    """
    row = stream.groups.index(STREAMED)
    products = [place for place, kind in enumerate(stream.kinds) if kind in PRODUCTS and place != row]
    computing_s = summed(op_s[products] * stream.repeat[products])
    op_s = op_s.copy()
    op_s[row] = np.hypot(computing_s, op_s[row]) - computing_s
    return op_s


def _by_kernels(
    stream: OpStream, device: DeviceProfile, stack: StackProfile, kernels: KernelModel, host_speed: float
) -> StepTime:
    op_s, compute_bound = kernel_s(prepare(stream, device, stack), kernels)
    measured = np.zeros(op_s.shape, dtype=bool)
    dispatch = dispatch_s(kernels, stack, host_speed)
    return StepTime(op_s=op_s, compute_bound=compute_bound, measured=measured, dispatch_s=dispatch, knee=kernels.knee)


def host_speed(cluster: Cluster, data_parallel: FloatArray) -> FloatArray:
    """Relative speed of a host's core when it serves so many processes, [candidates]."""
    host = cluster.system.host
    if host is None:
        return np.ones(data_parallel.shape)
    busy = np.minimum(data_parallel, cluster.per_node)
    share = np.log(busy) / np.log(max(cluster.system.n_devices, 2))
    speed: FloatArray = host.relative_speed * host.crowded_speed**share
    return speed


def crowding(cluster: Cluster, stack: StackProfile, processes: FloatArray) -> FloatArray:
    """How many times slower a host's core is when it serves so many processes, under a fitted kernel model. [candidates]"""
    if stack.kernels is None or cluster.system.host is None:
        return np.ones(processes.shape)
    return cluster.system.host.relative_speed / host_speed(cluster, processes)


def dispatch_s(kernels: KernelModel, stack: StackProfile, host_speed: float) -> dict[str, float]:
    """Dispatch of one operation by region, under a stack's kernel model and on a host of relative speed `host_speed`."""
    forward = kernels.host_op_s * stack.host_share / host_speed
    return {"forward": forward, "backward": forward * kernels.host_backward, "update": forward * kernels.host_update}


def overlapped(device_s: FloatArray, host_s: FloatArray, knee: float | FloatArray) -> FloatArray:
    """(d^knee + h^knee)^(1/knee): the longer of both where they differ, more than it where they are alike."""
    if np.all(np.isinf(knee)):
        return np.maximum(device_s, host_s)
    longer = np.maximum(np.maximum(device_s, host_s), 1e-12)
    both: FloatArray = longer * ((device_s / longer) ** knee + (host_s / longer) ** knee) ** (1 / knee)
    return np.where(device_s + host_s > 0, both, 0.0)


def peak_flops_per_s(device: DeviceProfile, dtype: str) -> float:
    """Peak of a dtype; a device without units for it computes in fp32, or in the slowest dtype that it has."""
    return device.peak(dtype) or device.peak("fp32") or min(device.peak_flops_per_s.values())


def bandwidth_bytes_per_s(device: DeviceProfile, stack: StackProfile, kind: str) -> float:
    """At which an operation of a kind moves its bytes; how fast tokens are read says only of the device it was measured on."""
    reads = kind == "summed" and stack.measured_device == device.id
    return (reads and stack.reading_bandwidth_bytes_per_s) or device.memory_bandwidth_bytes_per_s


def computed_in(kind: str, dtype: str) -> str:
    """Whose peak is the ceiling of a product: sums widen what they read."""
    return "fp32" if kind == "summed" else dtype


def eager_dispatch_s(stack: StackProfile, region: str, *, reading: bool) -> float:
    """Host time of one operation whose code and operands nothing drives out of a core's caches."""
    if reading and stack.host_reading_op_s is not None:
        return stack.host_reading_op_s
    forward = _HOST_OP_S if stack.host_op_s is None else stack.host_op_s
    backward = stack.host_backward_op_s
    return backward if region == "backward" and backward is not None else forward


def _token_op_s(stream: OpStream, stack: StackProfile, threads: int) -> FloatArray | None:
    """Host time of an operation of a token as whole tokens of its precision showed it, or those of fp32, [candidates]; None for
    anything but tokens, and where none were measured.

    Between points by the logarithm of a layer's weights. Of compiled tokens, in which all layers are read between what Python
    calls, by that of all that is read, but no less than where nothing disturbs; what torch's compiler makes of more rows was
    not measured.
    """
    if not reads_tokens(stream):
        return None
    compiled = meetings(stream).any(axis=0)
    if not compiled.any():
        separate = np.all(stream.dispatched == stream.launches)
        points = [(point.dtype, point.layer_bytes, point.op_s) for point in stack.token_host] if separate else []
        return _between(points, _precision(stream), layer_bytes(stream) / threads)
    points = [(point.dtype, point.token_bytes, point.op_s) for point in stack.compiled_token_host]
    found = _between(points, _precision(stream), summed_bytes(stream) / threads)
    least_s = eager_dispatch_s(stack, "forward", reading=True)
    return None if found is None else np.where(compiled, np.maximum(found, least_s), least_s)


def _between(points: Sequence[tuple[str, float, float]], precision: str, read_bytes: FloatArray) -> FloatArray | None:
    """By points of dtype, bytes and seconds."""
    own, wide = (sorted(point[1:] for point in points if point[0] == dtype) for dtype in (precision, "fp32"))
    if not (own or wide):
        return None
    sizes, seconds = zip(*(own or wide), strict=True)
    found: FloatArray = np.interp(np.log(np.maximum(read_bytes, 1.0)), np.log(sizes), seconds)
    return found


def _precision(stream: OpStream) -> str:
    """Of products."""
    return next(dtype for kind, dtype in zip(stream.kinds, stream.dtypes, strict=True) if kind in PRODUCTS)


def layer_bytes(stream: OpStream) -> FloatArray:
    """Of the weights that one layer's products read, [candidates]: n·k of the m·k + k·n + m·n numbers that each moves."""
    places = enumerate(zip(stream.sections, stream.kinds, strict=True))
    rows = [row for row, place in places if place == ("layers", "gemm")]
    m, n, k, moved = (figure[rows] for figure in (stream.m, stream.n, stream.k, stream.bytes_moved))
    weights: FloatArray = (moved * (n * k) / (m * k + k * n + m * n)).sum(axis=0)
    return weights


_Times = tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
"""Seconds, whether compute bounds, and whether it lies within what was measured; [ops, candidates] each."""


def _op_times(streams: Sequence[OpStream], device: DeviceProfile, stack: StackProfile, threads: int | None) -> list[_Times]:
    """All operations of a kind, dtype and phase at once."""
    efficiency = EfficiencyModel(device, stack, threads)
    launch_s = _LAUNCH_S[device.kind] if stack.launch_s is None else stack.launch_s
    meeting_s = _MEETING_S if stack.meeting_s is None else stack.meeting_s
    readings = token_readings(device, stack, threads)
    draw_s = _CPU_DRAW_S if device.kind == "cpu" and not efficiency.measures("random") else 0.0
    names = ("flops", "bytes_moved", "m", "n", "k", "launches", "draws")
    flops, bytes_moved, m, n, k, launches, draws = (
        np.concatenate([getattr(stream, name).ravel() for stream in streams]) for name in names
    )
    in_turn = np.concatenate([np.broadcast_to(summed_bytes(stream), stream.flops.shape).ravel() for stream in streams])
    met = np.concatenate([meetings(stream).ravel() for stream in streams])
    op_s = launches * launch_s + met * meeting_s + draws * draw_s
    compute_bound, measured = np.zeros(op_s.shape, dtype=bool), np.zeros(op_s.shape, dtype=bool)
    for (kind, dtype, phase), places in _places(streams).items():
        is_product, moved = kind in PRODUCTS, bytes_moved[places]
        work = flops[places] if is_product else moved
        calls = launches[places] if kind.endswith("attention") and device.kind == "cpu" else np.maximum(launches[places], 1.0)
        per_call = work / calls  # of a CPU's attention several operations are one call
        reached = efficiency.utilisation(kind, dtype, per_call, m[places], n[places], k[places], phase)
        streaming_s = moved / bandwidth_bytes_per_s(device, stack, kind)
        if is_product:
            computing_s = work / (peak_flops_per_s(device, computed_in(kind, dtype)) * reached.share)
            missed = _missed_share(in_turn[places] if kind == "summed" else moved, device)
            streaming_s = np.where(reached.measured, 0.0, missed * streaming_s)
            if kind == "summed" and readings:
                streaming_s = np.where(work > 0, moved * read_s_per_byte(readings, in_turn[places]), streaming_s)
            compute_bound[places] = (computing_s >= streaming_s) & (work > 0)
            knee = sums_knee(missed) if kind == "summed" else np.inf
            op_s[places] += overlapped(computing_s, streaming_s, knee)
        else:
            op_s[places] += streaming_s / np.maximum(reached.share, _LEAST_SHARE)
        measured[places] = reached.measured
    bounds = np.cumsum([stream.flops.size for stream in streams])[:-1]
    split = (np.split(figure, bounds) for figure in (op_s, compute_bound, measured))
    return [
        (seconds.reshape(shape), bound.reshape(shape), inside.reshape(shape))
        for seconds, bound, inside, shape in zip(*split, (stream.flops.shape for stream in streams), strict=True)
    ]


def summed_bytes(stream: OpStream) -> FloatArray:
    """Bytes that all sums of a step move, one after the other: what a cache must hold for any of them to find it there,
    [candidates]."""
    sums = [row for row, kind in enumerate(stream.kinds) if kind == "summed"]
    return summed(stream.bytes_moved[sums] * stream.repeat[sums])


def _places(streams: Sequence[OpStream]) -> dict[tuple[str, str, str], npt.NDArray[np.int64]]:
    """By kind, dtype and phase, where its operations are among those of all streams, one after another and raveled."""
    found: dict[tuple[str, str, str], list[npt.NDArray[np.int64]]] = {}
    before = 0
    for stream in streams:
        candidates = stream.flops.shape[1]
        columns = before + np.arange(candidates)
        for key, rows in _alike(stream.kinds, stream.dtypes, _phases(stream)).items():
            found.setdefault(key, []).append((rows[:, None] * candidates + columns).ravel())
        before += stream.flops.size
    return {key: np.concatenate(several) for key, several in found.items()}


def _phases(stream: OpStream) -> tuple[str, ...]:
    """As efficiency points name them; what is computed again is forward."""
    forward = "forward" if "backward" in stream.phases else "read"
    named = zip(stream.phases, stream.measured_as, strict=True)
    return tuple(own or ("backward" if phase == "backward" else forward) for phase, own in named)


@lru_cache(maxsize=256)
def _alike(
    kinds: tuple[str, ...], dtypes: tuple[str, ...], phases: tuple[str, ...]
) -> dict[tuple[str, str, str], npt.NDArray[np.int64]]:
    """Rows by kind, dtype and phase."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for row, key in enumerate(zip(kinds, dtypes, phases, strict=True)):
        found.setdefault(key, []).append(row)
    return {key: np.array(rows, dtype=np.int64) for key, rows in found.items()}


def _missed_share(bytes_moved: FloatArray, device: DeviceProfile) -> FloatArray:
    """Of what products move, the share that comes from memory: all beyond the cache; of what a CPU reads again and again in the
    same order, what random replacement misses.

    A line outlives the m·N misses between two readings with a chance of exp(-m·N/C) where the cache has C lines for N, so that
    m = 1 - exp(-m·N/C): none up to C, 0.37 of 1.25 C, 0.58 of 1.5 C, 0.80 of 2 C. On 2 cores of an Intel Xeon, whose cache is
    taken as 64 MiB, a byte of 80, 96, 128 and 192 MiB in turn cost 0.24 to 0.47, 0.30 to 0.72, 0.54 to 0.82 and 0.77 to 0.90 of
    what one of 512 MiB did, each over one of 8 MiB (three `benchmarks/inference.py spills --pairs 15`, fp32 and bf16, torch
    2.13, 2026-11-26). What this leaves out: of 32 and 64 MiB it cost 0.14 to 0.27 and 0.29 to 0.49, as others use that
    cache too.
    """
    held = device.cache_bytes or 0
    if device.kind != "cpu" or not held:
        return np.where(bytes_moved > held, 1.0, 0.0)
    share: FloatArray = np.interp(bytes_moved / held, _TIMES_CACHE, _MISSED)
    return share


_MISSED = np.linspace(0.0, 1.0, 1001)[:-1]
_TIMES_CACHE = np.append(1.0, -np.log1p(-_MISSED[1:]) / _MISSED[1:])
"""What is read over the cache where each share is missed: N/C = -ln(1 - m) / m."""
