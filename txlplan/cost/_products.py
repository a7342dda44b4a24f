"""Utilisation of matrix products between measured shapes.

The time of a call of `c` products [m, k] × [k, n] is modelled as

    t = a + c · (b·m·n + d·m·k + e·n·k + f·m·n·k)

a call, the result and the operands each moved once, arithmetic; no coefficient is negative, and each error counts in proportion
to its point's time. What is left, measured over modelled, is interpolated by inverse distance in the logarithms of m, n and k
(Shepard 1968), fading to nothing far from all points: a measured product comes back exactly. Left out of a fit, points of a
probe are predicted within 6 to 9 % so (large fp32 products, 2 cores of a Zen 3), by inverse distance alone within 11 to 13 %.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from txlplan.cost._op_stream import FloatArray
from txlplan.hardware import EfficiencyPoint

_IMPORTANCE = np.array([4, 0, 3, 2, 1])
"""Arithmetic, call, and what is moved of n·k, m·k and m·n."""
_FAR = 2.0
"""Distance, in logarithms of sizes, at which what is left counts by half."""


def interpolated(
    points: tuple[EfficiencyPoint, ...], work: FloatArray, m: FloatArray, n: FloatArray, k: FloatArray
) -> FloatArray:
    """Utilisation of calls of `work` FLOPs each, [candidates], from points that all have a shape."""
    coefficients, shapes, residuals = _fitted(points)
    sizes = [np.maximum(size, 1.0) for size in (m, n, k)]
    count = np.maximum(work / (2 * sizes[0] * sizes[1] * sizes[2]), 1e-9)
    modelled = _features(sizes[0], sizes[1], sizes[2], count) @ coefficients
    distance = np.square(np.log(np.stack(sizes, axis=1))[:, None, :] - shapes[None, :, :]).sum(axis=2)
    weight = 1.0 / np.square(np.maximum(distance, 1e-18))  # falls with the fourth power: the nearest few shapes decide
    left = (weight * residuals).sum(axis=1) / (weight.sum(axis=1) + _FAR**-4)
    flops = np.maximum(work, 1.0)
    share: FloatArray = flops / np.maximum(modelled * np.exp(left), 1e-300)
    return share


@lru_cache(maxsize=64)
def _fitted(points: tuple[EfficiencyPoint, ...]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Coefficients, logarithms of shapes [points, 3], and what is left [points]. Times are FLOPs over utilisation."""
    shapes = np.array([(point.m, point.n, point.k) for point in points], dtype=float)
    work = np.array([point.work for point in points])
    seconds = work / np.array([point.utilisation for point in points])
    rows = _features(shapes[:, 0], shapes[:, 1], shapes[:, 2], work / (2 * shapes.prod(axis=1)))
    coefficients = _positive(rows / seconds[:, None])
    return coefficients, np.log(shapes), np.log(seconds / (rows @ coefficients))


def _features(m: FloatArray, n: FloatArray, k: FloatArray, count: FloatArray) -> FloatArray:
    """[products, coefficients]"""
    return np.stack([np.ones(m.shape), count * m * n, count * m * k, count * n * k, count * m * n * k], axis=1)


def _positive(rows: FloatArray) -> FloatArray:
    """Coefficients, none below zero, that bring each row nearest to one: those that come out negative are left out in turn.

    Of few points no more is asked than they can tell: half as many coefficients, arithmetic first.
    """
    scale = rows.max(axis=0)
    used = np.sort(_told_apart(rows / scale)[: (len(rows) + 1) // 2])
    while True:
        found = np.linalg.lstsq(rows[:, used] / scale[used], np.ones(len(rows)), rcond=1e-9)[0]
        if (found >= 0).all() or used.size == 1:
            break
        used = np.delete(used, found.argmin())
    coefficients = np.zeros(rows.shape[1])
    coefficients[used] = np.abs(found) / scale[used]
    return coefficients


def _told_apart(rows: FloatArray) -> list[int]:
    """Columns by importance, but for those that others already give: of products of one row, moving n·k is as arithmetic."""
    chosen: list[int] = []
    for column in _IMPORTANCE.tolist():
        if np.linalg.matrix_rank(rows[:, [*chosen, column]], tol=1e-9) > len(chosen):
            chosen.append(column)
    return chosen
