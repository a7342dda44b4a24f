"""Measured matrix products of a device: a model of tiles and waves, corrected by what was measured near a shape.

    t = min over tiles a × b and splits s of k:
        max(waves · 2 a b (k / s + depth) / (rate · share(tile)), bytes / bandwidth) + sums of the splits + start
    waves = ceil(ceil(m / a) · ceil(n / b) · s / multiprocessors)

(NVIDIA, Matrix Multiplication Background User's Guide, §4; splits of k as in CUTLASS.) `rate` is the peak of one
multiprocessor times a fitted share. What is left, measured over modelled, is interpolated by inverse distance in the logarithms
of m, n and k (Shepard 1968): a measured product comes back exactly.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from txlplan.cost._clock import clock_power_w
from txlplan.errors import InputError
from txlplan.hardware import DeviceProfile, devices

COLUMNS = ("gpu", "precision", "M", "N", "K", "transA", "transB", "ms")
FloatArray = npt.NDArray[np.float64]
AT_POINTS, LEFT_OUT, OTHER = "its own points", "all but its (M, K) family", "only those of"
"""What a prediction had seen."""
_DEVICES = {"V100": "v100-sxm2-16gb", "T4": "t4"}
_TILES = {
    "fp32": ((128, 128, 1.0), (128, 64, 0.95), (64, 64, 0.9), (128, 32, 0.8), (64, 32, 0.7), (32, 32, 0.5)),
    "fp16": ((256, 128, 1.0), (128, 128, 0.97), (128, 64, 0.85), (64, 64, 0.7), (64, 32, 0.5), (32, 32, 0.3)),
}
"""Tiles, and the share of the best throughput that kernels of each reach, after the CUTLASS defaults."""
_SPLITS = (1, 2, 4, 8, 16, 32, 64, 128)
_BYTES = {"fp32": 4.0, "fp16": 2.0}
_START = {"share_fp32": 0.9, "share_fp16": 0.8, "depth_fp32": 16.0, "depth_fp16": 64.0, "bandwidth": 0.8, "start_s": 5e-6}
"""Where the fit starts from."""
_POWER = 4.0
_TRANSPOSED = 1.0
"""Squared distance of another order of operands, in logarithms of sizes."""
_FULL_CLOCK_W = 2.5
"""Power per multiprocessor that sustains 1.6 GHz, as the kernel model of the published stacks has it."""
_CUBE = 1 / 3
"""Dynamic power grows with the cube of the clock where the voltage follows it: what a product on its own reaches. Steps that
run for hours hold a lower clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Products:
    """Products measured on one device in one precision. Arrays are [products]."""

    device: DeviceProfile
    precision: str
    shape: FloatArray
    """m, n, k. [products, 3]"""
    order: npt.NDArray[np.str_]
    """Which operands were transposed: NN, TN, NT."""
    seconds: FloatArray

    @property
    def families(self) -> npt.NDArray[np.str_]:
        """Products that share m and k (a layer at several batches)."""
        return np.array([f"{int(m)}x{int(k)}" for m, _, k in self.shape])


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductScore:
    """Relative errors of predicted times, and how many there are. `what` says what the prediction had seen."""

    what: str
    device: str
    precision: str
    n: int
    median: float
    p90: float
    worst: float


def read_products(path: Path) -> list[Products]:
    """By device and precision. Raises InputError for a device or precision that is not known, and a row without a figure."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}", hint="save it as UTF-8") from None
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line, row in enumerate(rows, start=2):
        lacking = next((name for name in _COLUMNS if name not in row), None)
        if lacking is not None:
            raise InputError(f"{path} has no column {lacking!r}", hint=f"columns: {', '.join(_COLUMNS)}")
        _check_figures(path, line, row)
        precision = row["precision"].partition("_")[0]
        if row["gpu"] not in _DEVICES or precision not in _TILES:
            raise InputError(
                f"{path}, line {line}: {row['gpu']} {row['precision']} is not known", hint=f"known: {', '.join(_DEVICES)}"
            )
        groups.setdefault((row["gpu"], precision), []).append(row)
    return [_products(gpu, precision, own) for (gpu, precision), own in groups.items()]


_COLUMNS = ("gpu", "precision", "M", "N", "K", "transA", "transB", "ms")


def _check_figures(path: Path, line: int, row: dict[str, str]) -> None:
    for name in ("M", "N", "K", "ms"):
        try:
            good = 0 < float(row[name]) < math.inf
        except ValueError:
            good = False
        if not good:
            raise InputError(f"{path}, line {line}: {name} = {row[name]!r} must be a number of more than zero")


def _products(gpu: str, precision: str, rows: Sequence[dict[str, str]]) -> Products:
    return Products(
        device=devices.get(_DEVICES[gpu]),
        precision=precision,
        shape=np.array([[float(row[size]) for size in "MNK"] for row in rows]),
        order=np.array([row["transA"] + row["transB"] for row in rows]),
        seconds=np.array([float(row["ms"]) * 1e-3 for row in rows]),
    )


class ProductModel:
    """What one device's measured products say of any product."""

    def __init__(self, products: Products) -> None:
        self._seen = products
        self._numbers = _fitted(products)
        self._residual = np.log(products.seconds / tiled_s(products, self._numbers))

    def seconds(self, asked: Products, unseen: npt.NDArray[np.bool_] | None = None) -> FloatArray:
        """Times of products on their own device, [asked]. `unseen` [asked, seen] masks measurements that may not be used."""
        clock = min(_clock_share(asked.device) / _clock_share(self._seen.device), 1.0)
        distance = np.square(np.log(asked.shape)[:, None] - np.log(self._seen.shape)[None]).sum(axis=2)
        distance = distance + _TRANSPOSED * (asked.order[:, None] != self._seen.order[None])
        weight = 1.0 / np.maximum(distance, 1e-12) ** (_POWER / 2)
        if unseen is not None:
            weight = np.where(unseen, 0.0, weight)
        nearest = np.where(weight >= 1e23, 1.0, 0.0)
        weight = np.where(nearest.any(axis=1, keepdims=True), nearest, weight)
        correction = (weight * self._residual).sum(axis=1) / weight.sum(axis=1)
        predicted: FloatArray = tiled_s(asked, self._numbers, clock) * np.exp(correction)
        return predicted


def tiled_s(products: Products, numbers: dict[str, float], clock: float = 1.0) -> FloatArray:
    """Times by tiles and waves alone, with the best tile and split of each product. `clock`: share of its own. [products]"""
    device, precision = products.device, products.precision
    m, n, k = products.shape.T
    bandwidth = device.memory_bandwidth_bytes_per_s * numbers["bandwidth"]
    moving_s = _BYTES[precision] * (m * n + m * k + n * k) / bandwidth
    rate = (device.peak(precision) or 0.0) / device.cores * numbers[f"share_{precision}"] * clock
    best = np.full(m.shape, np.inf)
    for rows, columns, share in (*_TILES[precision], *((b, a, share) for a, b, share in _TILES[precision] if a != b)):
        for split in _SPLITS:
            waves = np.ceil(np.ceil(m / rows) * np.ceil(n / columns) * split / device.cores)
            computing_s = waves * 2 * rows * columns * (k / split + numbers[f"depth_{precision}"]) / (rate * share)
            sums_s = 8.0 * split * m * n / bandwidth if split > 1 else 0.0
            best = np.minimum(best, np.maximum(computing_s, moving_s) + sums_s)
    return best + numbers["start_s"]


def _fitted(products: Products) -> dict[str, float]:
    """Shares, depth and start by least squares of log(modelled / measured), robustly (soft L1)."""
    from scipy.optimize import least_squares

    names = [name for name in _START if "_fp" not in name or name.endswith(products.precision)]

    def residuals(logs: FloatArray) -> FloatArray:
        return np.log(tiled_s(products, dict(zip(names, np.exp(logs), strict=True))) / products.seconds)

    start = np.log([_START[name] for name in names])
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.1, diff_step=1e-3, max_nfev=15)
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))


def _clock_share(device: DeviceProfile) -> float:
    return float(min(clock_power_w(device) / _FULL_CLOCK_W, 1.0) ** _CUBE)


def score_products(groups: Sequence[Products]) -> list[ProductScore]:
    """Errors at the measured points, of every (m, k) family left out whole, and of each slower device by a faster one's."""
    models = [ProductModel(group) for group in groups]
    scores = [_score(AT_POINTS, own, _errors(own, model.seconds(own))) for own, model in zip(groups, models, strict=True)]
    for own, model in zip(groups, models, strict=True):
        same = own.families[:, None] == own.families[None]
        scores.append(_score(LEFT_OUT, own, _errors(own, model.seconds(own, same))))
    pairs = [
        (seen, asked, _errors(asked, model.seconds(asked)))
        for seen, model in zip(groups, models, strict=True)
        for asked in groups
        if asked.device.cores < seen.device.cores and asked.precision == seen.precision
    ]
    scores.extend(_score(f"{OTHER} {seen.device.id}", asked, errors) for seen, asked, errors in pairs)
    for name in dict.fromkeys(seen.device.id for seen, _, _ in pairs):
        others = [(asked, errors) for seen, asked, errors in pairs if seen.device.id == name]
        every = _score(f"{OTHER} {name}", others[0][0], np.concatenate([errors for _, errors in others]))
        scores.append(replace(every, precision="all"))
    return scores


def _errors(asked: Products, predicted: FloatArray) -> FloatArray:
    error: FloatArray = np.abs(predicted / asked.seconds - 1)
    return error


def _score(what: str, asked: Products, error: FloatArray) -> ProductScore:
    return ProductScore(
        what=what,
        device=asked.device.id,
        precision=asked.precision,
        n=error.size,
        median=float(np.median(error)),
        p90=float(np.quantile(error, 0.9)),
        worst=float(error.max()),
    )
