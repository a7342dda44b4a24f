"""Time of kernels by a fitted model: which of compute, memory bandwidth and launch bounds each operation on a GPU.

    product      max(FLOPs / (peak · clock · share · k / (k + depth) · tiles), bytes / bandwidth) + launches · launch
    other        bytes / (bandwidth · share) + accesses · instructions / (lanes · clock) + launches · launch

`clock` is the sustained over the rated clock (`_clock`). `depth` grows with the rate of the units: prologue and epilogue of a
product take the same time on faster ones. `tiles` is the wave quantisation of `_efficiency`. Elementwise kernels issue
instructions for each element as well as move its bytes: many where they index strided scores, and faster memory does not
help with them. An odd leading dimension (267,735 words) keeps a product off tensor cores in early libraries and, in later
ones, bounds it by its element-wise loads (`odd_*`).

What does not depend on the fitted numbers is worked out once (`Prepared`), so that a fit can turn them over many times.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from txlplan.cost._clock import clock_limit, clock_power_w, rated_clock_hz
from txlplan.cost._efficiency import ALIGNED, odd, quantised
from txlplan.cost._ends import SOFTMAX
from txlplan.cost._layer import SCORES
from txlplan.cost._op_stream import FloatArray, OpStream
from txlplan.hardware import PRODUCTS, DeviceProfile, KernelModel, StackProfile

_LAUNCH_S = 2.6e-6
"""Back-to-back launches on one stream (te42kyfo/gpu-benches gpu-small-kernels, A100 80 GB)."""
_ODD_FMA = 256.0
"""FMA per multiprocessor and clock that `odd_*` are shares of."""
_LANES = 128.0
"""Lanes that a multiprocessor issues instructions for in each clock: four schedulers, one warp each."""
_BYTES = {"fp16": 2.0, "bf16": 2.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Operations on one device (or of several rows, one after another). All arrays broadcast to [ops, candidates]."""

    product: npt.NDArray[np.bool_]
    batched: npt.NDArray[np.bool_]
    tail: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.bool_]
    loss: npt.NDArray[np.bool_]
    fused: npt.NDArray[np.bool_]
    odd: npt.NDArray[np.bool_]
    half: npt.NDArray[np.bool_]
    tf32: npt.NDArray[np.bool_]
    first_tensor_cores: npt.NDArray[np.bool_]
    vector: npt.NDArray[np.bool_]
    """The library keeps odd products off tensor cores."""
    early: npt.NDArray[np.bool_]
    depth: FloatArray
    """k of a product."""
    fma_per_clock: FloatArray
    """Peak of a product per multiprocessor and clock."""
    tiles: FloatArray
    flops: FloatArray
    bytes_moved: FloatArray
    launch_s: FloatArray
    peak_flops_per_s: FloatArray
    vector_flops_per_s: FloatArray
    """fp32 peak."""
    odd_flops_per_s: FloatArray
    bandwidth_bytes_per_s: FloatArray
    accesses: FloatArray
    """Elements read and written."""
    issue_per_s: FloatArray
    """Lane instructions that the multiprocessors issue at the rated clock."""
    clock_power_w: FloatArray
    """See `_clock`."""
    clock_limit: FloatArray

    @classmethod
    def joined(cls, parts: list[Prepared]) -> Prepared:
        """Operations of several rows, one after another, each with one candidate. [all ops, 1]"""
        return cls(
            **{
                field.name: np.concatenate([np.broadcast_to(getattr(part, field.name), part.flops.shape) for part in parts])
                for field in fields(cls)
            }
        )


def prepare(stream: OpStream, device: DeviceProfile, stack: StackProfile) -> Prepared:
    """All that the fitted numbers are applied to."""
    peak = np.array([_peak(device, dtype) for dtype in stream.dtypes])[:, None]
    product = _rows(kind in PRODUCTS for kind in stream.kinds)
    half = _rows(dtype in ("fp16", "bf16") and device.peak(dtype) is not None for dtype in stream.dtypes)
    vectors = np.array([ALIGNED.get(dtype, 1) for dtype in stream.dtypes])[:, None]
    m, n, k = (np.maximum(size, 1.0) for size in (stream.m, stream.n, stream.k))
    count = np.maximum(stream.flops / (2 * m * n * k), 1.0)
    tiles = np.where(product, quantised(m, n, count, device.cores), 1.0)
    clock_hz = rated_clock_hz(device)
    return Prepared(
        product=product,
        batched=_rows(kind in ("bmm", "attention", "scored attention", "token attention") for kind in stream.kinds),
        tail=_rows(_in_tail(name, group) for name, group in zip(stream.names, stream.groups, strict=True)),
        scores=_rows(group == SCORES for group in stream.groups) & ~product,
        loss=_rows(kind in ("loss", "softmax") for kind in stream.kinds),
        fused=np.array([[stack.fused]]),
        odd=product & odd(stream.n, stream.k, vectors),
        half=half,
        tf32=_rows(dtype == "tf32" and device.peak(dtype) is not None for dtype in stream.dtypes),
        first_tensor_cores=np.array([[device.architecture in ("volta", "turing")]]),
        vector=np.array([[stack.odd_products == "vector"]]),
        early=np.array([[stack.odd_products == "early-tensor"]]),
        depth=stream.k,
        fma_per_clock=peak / (2 * device.cores * clock_hz),
        tiles=np.maximum(tiles, 1e-3),
        flops=stream.flops,
        bytes_moved=stream.bytes_moved,
        launch_s=stream.launches * _LAUNCH_S,
        peak_flops_per_s=peak,
        vector_flops_per_s=np.array([[_peak(device, "fp32")]]),
        odd_flops_per_s=np.array([[2 * _ODD_FMA * device.cores * clock_hz]]),
        bandwidth_bytes_per_s=np.array([[device.memory_bandwidth_bytes_per_s]]),
        accesses=stream.bytes_moved / np.array([_BYTES.get(dtype, 4) for dtype in stream.dtypes])[:, None],
        issue_per_s=np.array([[_LANES * device.cores * clock_hz]]),
        clock_power_w=np.array([[clock_power_w(device)]]),
        clock_limit=np.array([[clock_limit(device)]]),
    )


def kernel_s(prepared: Prepared, kernels: KernelModel) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Seconds of one repetition of each operation, and whether compute bounds it. Both [ops, candidates]."""
    work = np.where(prepared.tail, kernels.tail_share, 1.0)
    bandwidth = prepared.bandwidth_bytes_per_s * kernels.stream
    computing_s = prepared.flops / _rate(prepared, kernels)
    product_s = np.maximum(computing_s, prepared.bytes_moved / bandwidth)
    fused = np.where(prepared.fused, kernels.fused_traffic, 1.0)
    traffic = np.where(prepared.scores, kernels.score_traffic * fused, 1.0)
    traffic = traffic / np.where(prepared.loss, kernels.loss, 1.0)
    moving_s = prepared.bytes_moved * traffic / bandwidth
    instructions = np.where(prepared.scores, kernels.issue_scores * fused, kernels.issue)
    issuing_s = prepared.accesses * instructions / (prepared.issue_per_s * _clock(prepared, kernels))
    seconds = work * np.where(prepared.product, product_s, moving_s + issuing_s)
    compute_bound = prepared.product & (computing_s >= prepared.bytes_moved / bandwidth)
    return seconds + prepared.launch_s, compute_bound


def _rate(prepared: Prepared, kernels: KernelModel) -> FloatArray:
    """FLOP/s of each product."""
    half = np.where(prepared.first_tensor_cores, kernels.product_fp16_first, kernels.product_fp16)
    share = _by_dtype(prepared, half, kernels.product_tf32, kernels.product_fp32)
    depth = kernels.depth * prepared.fma_per_clock
    share = share * prepared.depth / (prepared.depth + depth) * prepared.tiles
    share = share * np.where(prepared.batched, kernels.batched, 1.0)
    aligned = prepared.peak_flops_per_s * share
    of_odd = np.where(prepared.vector, _odd_on_vectors(prepared, kernels, aligned), _odd_on_tensors(prepared, kernels, aligned))
    rate: FloatArray = np.maximum(np.where(prepared.odd, of_odd, aligned) * _clock(prepared, kernels), 1.0)
    return rate


def _clock(prepared: Prepared, kernels: KernelModel) -> FloatArray:
    """Sustained over rated clock."""
    clock: FloatArray = np.minimum(prepared.clock_power_w / kernels.full_clock_w, prepared.clock_limit)
    return clock


def _odd_on_vectors(prepared: Prepared, kernels: KernelModel, aligned: FloatArray) -> FloatArray:
    slower = np.where(prepared.half, prepared.vector_flops_per_s * kernels.odd_vector, aligned * kernels.odd_fp32)
    return np.where(prepared.tf32, aligned, slower)


def _odd_on_tensors(prepared: Prepared, kernels: KernelModel, aligned: FloatArray) -> FloatArray:
    cap = prepared.odd_flops_per_s * _by_dtype(prepared, kernels.odd_fp16, kernels.odd_tf32, np.inf)
    return np.minimum(aligned, cap * np.where(prepared.early, kernels.odd_early, 1.0))


def _by_dtype(prepared: Prepared, half: FloatArray | float, tf32: float, fp32: float) -> FloatArray:
    chosen: FloatArray = np.where(prepared.half, half, np.where(prepared.tf32, tf32, fp32))
    return chosen


def _rows(flags: object) -> npt.NDArray[np.bool_]:
    """Flags of operations as a column, [ops, 1]."""
    return np.fromiter(flags, dtype=bool)[:, None]  # type: ignore[call-overload,no-any-return]


def _in_tail(name: str, group: str) -> bool:
    """Whether the operation runs over the words of a further cluster of the softmax; slices of tables do not."""
    return group == SOFTMAX and name.startswith("cluster") and not name.startswith("cluster 0") and "slice" not in name


def _peak(device: DeviceProfile, dtype: str) -> float:
    return device.peak(dtype) or device.peak("fp32") or min(device.peak_flops_per_s.values())
