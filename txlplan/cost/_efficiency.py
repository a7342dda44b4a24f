"""How much of a device's ceiling an operation reaches: measured where a stack says so, modelled where it does not.

The ceiling of a matrix product is the peak FLOP/s of its dtype, of anything else the memory bandwidth. Utilisation, not
latency, is interpolated, over the logarithm of the work; that of products by a model of their time (`_products`). A measured
point comes back exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._op_stream import FloatArray
from txlplan.cost._products import interpolated
from txlplan.hardware import PRODUCTS, DeviceProfile, EfficiencyPoint, StackProfile
from txlplan.model._tiles import FEW_ROWS, SUMMED_ROWS

_STAND_INS: dict[str, tuple[str, ...]] = {
    "gemm": ("gemm",),
    "linear": ("linear", "gemm"),
    "bmm": ("bmm", "gemm"),
    "attention": ("attention", "bmm", "gemm"),
    "scored attention": ("scored attention", "attention", "bmm", "gemm"),
    "token attention": ("token attention", "bmm", "gemm"),
    "summed": ("summed",),
    "softmax": ("softmax", "elementwise", "copy"),
    "elementwise": ("elementwise", "copy"),
    "norm": ("norm", "softmax", "elementwise", "copy"),
    "gather": ("gather", "copy", "elementwise"),
    "loss": ("loss", "softmax", "elementwise", "copy"),
    "sampling": ("sampling", "loss", "softmax", "elementwise", "copy"),
    "random": ("random", "elementwise", "copy"),
    "dropout": ("dropout", "elementwise", "copy"),
    "optimizer": ("optimizer", "elementwise", "copy"),
    "copy": ("copy", "elementwise"),
    "collective": ("collective", "copy"),
}
"""Kinds whose points serve, nearest first, where a kind has none of its own."""
ALIGNED = {"fp16": 8, "bf16": 8, "tf32": 4, "fp32": 4}
"""Elements of 16 bytes: leading dimensions that are multiples of it load whole vectors on a GPU."""
_OF_MATRICES = ("gemm", "linear")
"""Products whose leading dimensions are those of their matrices; attention pads its own."""
_HULL_FACTOR = 8.0
"""Work within this factor of the measured range counts as measured; beyond it the estimate is extrapolated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utilisation:
    """Share of the ceiling that one operation reaches, and whether it lies within what was measured. Both [candidates]."""

    share: FloatArray
    measured: npt.NDArray[np.bool_]


class EfficiencyModel:
    """Utilisation of every kind of operation on one device under one stack with some number of CPU threads."""

    def __init__(self, device: DeviceProfile, stack: StackProfile, threads: int | None = None) -> None:
        self._device = device
        self._points = _by_kind_and_dtype(stack.efficiency, threads, device.cores)
        self._share_of_cores = _share_of_cores(threads, device)
        self._scale = _thread_scale(stack.efficiency, threads, device)

    def utilisation(
        self, kind: str, dtype: str, work: FloatArray, m: FloatArray, n: FloatArray, k: FloatArray, phase: str | None = None
    ) -> Utilisation:
        """`work` is FLOPs (of products) or bytes of one call; m, n, k are used for products only. All [candidates].

        `phase`: as of points; where those of a kind do not tell phases apart, all count, and of reading those of forward.
        """
        found, own = self._nearest_points(kind, dtype)
        points = _of_phase(found, phase)
        if not points:
            scale = self._scale if kind != "summed" else self._share_of_cores
            share = _modelled(self._device, kind, dtype, m, n, k, work) * scale
            return Utilisation(share=share, measured=np.zeros(work.shape, dtype=bool))
        inside = _within(points, work) & own
        if kind in PRODUCTS and all(point.m and point.n and point.k for point in points):
            vector = ALIGNED.get(dtype, 1) if self._device.kind == "gpu" and kind in _OF_MATRICES else 1
            share = _of_products(points, work, m, n, k, vector)
            odd_points = tuple(point for point in points if _is_odd(point, vector))
            inside &= ~odd(n, k, vector) | _within(odd_points, work)
        else:
            works = np.array([point.work for point in points])
            order = np.argsort(works, kind="stable")
            shares = np.array([point.utilisation for point in points])
            share = np.interp(np.log(np.maximum(work, 1.0)), np.log(works[order]), shares[order])
        return Utilisation(share=share * self._scale, measured=inside)

    def measures(self, kind: str) -> bool:
        """Whether there are points of this kind."""
        return any(known == kind for known, _ in self._points)

    def _nearest_points(self, kind: str, dtype: str) -> tuple[tuple[EfficiencyPoint, ...], bool]:
        """Points of the kind (or of a related kind), and whether they are of the kind and dtype asked for."""
        for stand_in in _STAND_INS[kind]:
            if found := self._points.get((stand_in, dtype)):
                return found, stand_in == kind
        if kind not in PRODUCTS:
            for stand_in in _STAND_INS[kind]:
                for (other, _), found in self._points.items():
                    if other == stand_in:
                        return found, False
        return (), False


def _by_kind_and_dtype(
    points: Sequence[EfficiencyPoint], threads: int | None, cores: int
) -> dict[tuple[str, str], tuple[EfficiencyPoint, ...]]:
    """Points measured with `threads`, or where there are none those measured with all."""
    exact = [point for point in points if threads is not None and (point.threads or cores) == threads]
    chosen = exact or [point for point in points if point.threads in (None, cores)] or list(points)
    grouped: dict[tuple[str, str], list[EfficiencyPoint]] = {}
    for point in chosen:
        grouped.setdefault((point.kind, point.dtype), []).append(point)
    return {key: tuple(found) for key, found in grouped.items()}


def _of_phase(points: tuple[EfficiencyPoint, ...], phase: str | None) -> tuple[EfficiencyPoint, ...]:
    """Those of a phase, or of all; of reading, those of forward where it has none of its own."""
    alone = tuple(point for point in points if point.phase == "read")
    if phase == "read":
        return alone or _of_phase(points, "forward")
    others = tuple(point for point in points if point.phase != "read")
    return tuple(point for point in others if phase is None or point.phase in (None, phase)) or others or alone


def _thread_scale(points: Sequence[EfficiencyPoint], threads: int | None, device: DeviceProfile) -> float:
    """A CPU with fewer threads than cores reaches that share of its ceilings, unless points were measured so."""
    measured = any((point.threads or device.cores) == threads for point in points)
    return 1.0 if measured else _share_of_cores(threads, device)


def _share_of_cores(threads: int | None, device: DeviceProfile) -> float:
    return 1.0 if device.kind != "cpu" or threads is None else min(1.0, threads / device.cores)


def _of_products(
    points: tuple[EfficiencyPoint, ...], work: FloatArray, m: FloatArray, n: FloatArray, k: FloatArray, vector: int
) -> FloatArray:
    """Products of few rows by points of few rows, others by others, where there are both; and so for those of which a leading
    dimension fills no vectors, the result's as good as an operand's (the fitted kernel model takes them for alike, too)."""
    share, few, unaligned = np.empty(work.shape), m <= FEW_ROWS, odd(n, k, vector)
    for is_few in (True, False):
        of_rows = tuple(point for point in points if ((point.m or 0) <= FEW_ROWS) == is_few) or points
        for is_odd in (True, False):
            alike = tuple(point for point in of_rows if _is_odd(point, vector) == is_odd) or of_rows
            here = (few == is_few) & (unaligned == is_odd)
            if here.any():
                share[here] = interpolated(alike, work[here], m[here], n[here], k[here])
    return share


def _within(points: Sequence[EfficiencyPoint], work: FloatArray) -> npt.NDArray[np.bool_]:
    """About as much work as was measured."""
    least, most = min((point.work for point in points), default=np.inf), max((point.work for point in points), default=0.0)
    return (work >= least / _HULL_FACTOR) & (work <= most * _HULL_FACTOR)


def odd(n: FloatArray, k: FloatArray, vector: npt.NDArray[np.int64] | int) -> npt.NDArray[np.bool_]:
    """Whether a leading dimension of a product is no multiple of `vector` elements."""
    found: npt.NDArray[np.bool_] = (n % vector != 0) | (k % vector != 0)
    return found


def _is_odd(point: EfficiencyPoint, vector: int) -> bool:
    return (point.n or 0) % vector != 0 or (point.k or 0) % vector != 0


_BEST_PRODUCT = {"gpu": 0.80, "tpu": 0.65, "cpu": 0.60}
"""Share of the dense peak that the best large products reach: cuBLAS 0.80–0.90 on V100 to H100, oneDNN and MKL 0.5–0.8."""
_TILES = ((256, 128, 1.0), (128, 128, 0.97), (128, 64, 0.85), (64, 64, 0.70))
"""Tile of a product and the share of the best throughput that kernels of this tile reach, after the CUTLASS defaults."""
_PRODUCT_DEPTH = {"fp32": 16.0, "tf32": 64.0, "fp16": 128.0, "bf16": 128.0}
"""Depth k at which prologue and epilogue cost as much as the product itself."""
_SUMMED_FLOPS = {"wide": (5.5, 1.65, -390.0, 534.0), "narrow": (4.2, 1.83, -69.0, 464.0)}
"""Compiled sums take as long as so many FLOPs at the peak of fp32: for reading a weight of fp32, or of 16 bits, for adding its
product with a number of one row, for each output, and for each output of one row (2 cores of an Intel Xeon with AMX, torch
2.13, medians of seven `benchmarks/inference.py sums --pairs 15`, 2026-11-26, which lay between 4.9 and 8.5, 1.46 and 1.76, -533
and 227, 241 and 578; 3.9 and 5.4, 1.58 and 2.1, -341 and 162, 386 and 555). Solved from 1 and 8 rows of 128 and 1,024 inputs;
the sums of attention, which read heads of 32 or more, are taken to be alike."""
_STREAMING = {
    "softmax": 0.70,
    "norm": 0.70,
    "dropout": 0.50,
    "gather": 0.60,
    "loss": 0.65,
    "optimizer": 0.75,
    "elementwise": 0.80,
    "copy": 0.80,
}
_STREAMING_RAMP_S = 2e-6
"""A stream this long at full bandwidth reaches half of it: ramp-up and tail of one kernel."""


def _modelled(
    device: DeviceProfile, kind: str, dtype: str, m: FloatArray, n: FloatArray, k: FloatArray, work: FloatArray
) -> FloatArray:
    """Utilisation where nothing was measured; constants above, each an assumption and not a measurement."""
    if kind not in PRODUCTS:
        ramp = 0.0 if device.kind == "cpu" else _STREAMING_RAMP_S * device.memory_bandwidth_bytes_per_s
        return _STREAMING.get(kind, 0.70) * work / np.maximum(work + ramp, 1.0)
    if kind == "summed":
        weight, weight_row, output, output_row = _SUMMED_FLOPS["wide" if dtype == "fp32" else "narrow"]
        rows = np.minimum(m, SUMMED_ROWS)
        share: FloatArray = 2 * rows / (weight + weight_row * rows + (output + output_row * rows) / np.maximum(k, 1.0))
        return share
    best = _BEST_PRODUCT[device.kind] * (1.0 if kind in ("gemm", "linear") else 0.7)
    depth = k / (k + _PRODUCT_DEPTH.get(dtype, 64.0))
    if device.kind == "cpu":
        return np.maximum(best * depth, 1e-3)
    products = np.maximum(work / np.maximum(2 * m * n * k, 1.0), 1.0)
    return np.maximum(best * depth * quantised(m, n, products, device.cores), 1e-3)


def quantised(m: FloatArray, n: FloatArray, products: FloatArray, cores: int) -> FloatArray:
    """Tile and wave quantisation: the share of a device's multiprocessor time that is spent on elements of the result.

    With tiles of a × b, ceil(m/a)·ceil(n/b)·products tiles run in waves of `cores`; the last wave and the edges of the
    tiles are wasted (NVIDIA, Matrix Multiplication Background User's Guide, §4). The best tile is taken.
    """
    shares = []
    for rows, columns, throughput in _TILES:
        tiles = np.ceil(m / rows) * np.ceil(n / columns) * products
        waves = np.ceil(tiles / cores)
        shares.append(throughput * m * n * products / (rows * columns * waves * cores))
    best: FloatArray = np.max(shares, axis=0)
    return best
