"""The pairs that benchmarks are timed in, on a clock of the test's own."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from _pairs import ratio


class Clock:
    """Work that takes the seconds it is told, one after another."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now_s)

    def work(self, *seconds: float) -> Any:
        coming = iter(seconds)

        def run() -> None:
            self.now_s += next(coming)

        return run


def test_the_ratio_is_the_median_over_pairs_without_the_first_call_of_each(monkeypatch: Any) -> None:
    clock = Clock(monkeypatch)
    found = ratio(clock.work(99, 6, 8, 40), clock.work(99, 1, 2, 4), pairs=3, a_units=2, b_units=1)
    assert found.value == pytest.approx(3)  # 3, 2 and 5
    assert (found.low, found.high) == pytest.approx((2, 5))
    assert (found.a_s, found.b_s) == (4, 2)


def test_what_slows_both_of_a_pair_leaves_their_ratio(monkeypatch: Any) -> None:
    clock = Clock(monkeypatch)
    slow = [1.0, 1, 7, 1, 3, 1, 1, 9]
    found = ratio(clock.work(*(2 * factor for factor in slow)), clock.work(*slow), pairs=7)
    assert (found.low, found.value, found.high) == pytest.approx((2, 2, 2))
