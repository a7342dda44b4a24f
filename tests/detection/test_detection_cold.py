"""What a probe reads that no cache holds."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from txlplan.detection import _cold
from txlplan.detection._cold import cold, cold_memory_given_back, in_turn, kept_results


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A memory of 1 KiB, which a test leaves as it was."""
    monkeypatch.setattr(_cold, "_BYTES", 1 << 10)
    with cold_memory_given_back():
        yield


def test_one_begins_where_the_last_one_ended():
    first, second = cold(3, 5, dtype=torch.float32), cold(64, dtype=torch.float32)
    assert first.shape == (3, 5)
    assert second.data_ptr() - first.data_ptr() == 64  # of cache lines, whole ones


def test_the_end_is_followed_by_the_beginning():
    first, _, third = (cold(120, dtype=torch.float32) for _ in range(3))
    assert third.data_ptr() == first.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_are_small_and_normal(dtype):
    x = cold(16, dtype=dtype).float()
    assert bool(((x > 1e-3) & (x < 2)).all())


def test_all_are_read_before_one_is_read_again():
    turns = in_turn(lambda: cold(64, dtype=torch.float32), 256.0)
    places = [each.data_ptr() for each in islice(turns, 8)]
    assert len(set(places)) == 4
    assert places[:4] == places[4:]


def test_the_latest_results_are_kept():
    results = kept_results(_cold._RESULTS_BYTES / 2)
    results.extend(torch.tensor(number) for number in range(3))
    assert [int(each) for each in results] == [1, 2]


def test_memory_is_given_back():
    with cold_memory_given_back():
        cold(1, dtype=torch.float32)
    assert _cold._memory._bytes is None
