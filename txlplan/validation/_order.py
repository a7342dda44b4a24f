"""Whether predictions rank as measurements do: what a buyer who compares systems, or a planner that chooses, depends on."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from txlplan.hardware import DeviceProfile
from txlplan.validation._rows import Row

APART = 0.10
"""Two rows are compared where one was measured faster than the other by more than this share."""

_Speed = Callable[[Row], float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Pairs of rows of one model, task and stack on two systems, measured more than `APART` apart."""

    pairs: int
    right: float | None
    """Share of the pairs whose faster one was predicted to be faster; None without pairs."""
    ratio_error: float | None
    """Mean over the pairs of |predicted ratio / measured ratio − 1|, faster over slower."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """How well predictions order what was measured."""

    predicted: Order
    by_peak: Order
    """The same where a row's speed is taken to be the peak FLOP/s of its devices."""
    systems: int
    """Of one model, task and stack, on which several settings (precision, batch) were measured."""
    choice_loss: float | None
    """Throughput lost on average where the setting predicted to be the fastest is taken, a share of the best measured."""


def rank(rows: Sequence[Row], devices: Mapping[str, DeviceProfile]) -> Ranking:
    """Compare rows with a measured throughput in pairs; a system is a device and how many of it.

    `devices` are the profiles whose peaks are ranked by: rows of others are left out of that.
    """
    measured = [row for row in rows if row.tokens_per_s.measured]
    losses = list(_losses(measured))
    return Ranking(
        predicted=_order(measured, lambda row: row.tokens_per_s.predicted),
        by_peak=_order(measured, lambda row: _peak_flops_per_s(row, devices.get(row.device))),
        systems=len(losses),
        choice_loss=statistics.fmean(losses) if losses else None,
    )


def _order(rows: Sequence[Row], speed: _Speed) -> Order:
    right, errors = [], []
    for faster, slower in _pairs(rows):
        one, other = speed(faster), speed(slower)
        if one is None or other is None:
            continue
        right.append(one > other)
        errors.append(abs(one / other / (_measured(faster) / _measured(slower)) - 1))
    return Order(
        pairs=len(right),
        right=statistics.fmean(right) if right else None,
        ratio_error=statistics.fmean(errors) if errors else None,
    )


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """(faster, slower) of two systems."""
    for group in _groups(rows, lambda row: (row.model, row.task, row.stack)):
        for one, other in combinations(sorted(group, key=_measured, reverse=True), 2):
            if _system(one) != _system(other) and _measured(one) > _measured(other) * (1 + APART):
                yield one, other


def _losses(rows: Sequence[Row]) -> Iterator[float]:
    for group in _groups(rows, lambda row: (row.model, row.task, row.stack, *_system(row))):
        if len(group) > 1:
            chosen = max(group, key=lambda row: row.tokens_per_s.predicted)
            yield 1 - _measured(chosen) / max(map(_measured, group))


def _groups(rows: Sequence[Row], key: Callable[[Row], tuple[object, ...]]) -> list[list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _system(row: Row) -> tuple[str, int]:
    return row.device, row.n_devices


def _measured(row: Row) -> float:
    assert row.tokens_per_s.measured is not None
    return row.tokens_per_s.measured


def _peak_flops_per_s(row: Row, device: DeviceProfile | None) -> float | None:
    """Of all devices, for the row's precision (fp32 where the device has no units for it)."""
    peak = None if device is None else device.peak(row.precision) or device.peak("fp32")
    return None if peak is None else peak * row.n_devices
