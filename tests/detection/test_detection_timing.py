"""Timing: summaries that noise cannot move far, and a budget that is kept."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.detection._timing import Sample, scatter, time_call, time_in_rounds

_TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12)


@given(times=_TIMES, factor=st.floats(2.0, 100.0))
def test_slowing_what_lies_above_the_median_changes_nothing(times, factor):
    ordered = sorted(times)
    keep = (len(ordered) + 1) // 2 if len(ordered) % 2 else len(ordered) // 2 + 1
    slowed = ordered[:keep] + [value * factor for value in ordered[keep:]]
    assert Sample(tuple(slowed)).seconds == Sample(tuple(times)).seconds


def test_of_two_rounds_neither_counts_more_unless_one_was_held_up():
    assert Sample((1.2, 1.0)).seconds == 1.1
    assert Sample((1.6, 1.0)).seconds == 1.0
    assert Sample((9.0, 1.0, 1.2, 1.4)).seconds == pytest.approx(1.3)


@given(times=_TIMES)
def test_half_of_the_rounds_are_no_slower(times):
    middle = Sample(tuple(times)).seconds
    assert 2 * sum(each <= middle for each in times) >= len(times)
    assert 2 * sum(each >= middle for each in times) >= len(times)


def test_scatter_is_of_whole_rounds():
    assert scatter([Sample((1.0, 1.0, 1.0)), Sample((2.0, 2.0, 2.0))]) == 0.0
    opposed = [Sample((1.0, 2.0)), Sample((2.0, 1.0))]
    assert scatter(opposed) == 0.0
    assert scatter([Sample((1.0, 1.1))]) == pytest.approx(0.0674, abs=1e-3)
    assert scatter([Sample((1.0,))]) == 0.0


def test_a_call_is_repeated_until_the_clock_can_tell():
    calls = []
    seconds = time_call(lambda: calls.append(None), lambda: None, sample_s=0.02)
    assert len(calls) > 10
    assert len(calls) * seconds >= 0.02


def test_the_budget_ends_the_rounds_and_leaves_the_rest_unmeasured():
    start = time.perf_counter()
    slow = [lambda: lambda: time.sleep(0.03)] * 20
    samples = time_in_rounds(slow, lambda: None, budget_s=0.2)
    assert time.perf_counter() - start < 1.5
    assert samples[0] is not None
    assert samples[-1] is None


def test_work_is_built_for_each_sample_and_called_once_before_it_is_timed():
    events = []

    def build():
        events.append("build")
        return lambda: events.append("work")

    (sample,) = time_in_rounds([build], lambda: None, budget_s=30.0)
    assert events.count("build") == len(sample.times_s)
    assert events[1] == "work"


def test_the_call_before_is_none_of_the_time_however_long_it_takes():
    """It loads code, and grows the heap."""

    def build():
        waits = iter([0.4])
        return lambda: time.sleep(next(waits, 0.001))

    (sample,) = time_in_rounds([build], lambda: None, budget_s=0.1)
    assert max(sample.times_s) < 0.1


def test_what_is_seldom_wanted_is_timed_in_every_third_round():
    often, seldom = time_in_rounds([lambda: lambda: None] * 2, lambda: None, budget_s=30.0, seldom={1})
    assert (len(often.times_s), len(seldom.times_s)) == (12, 4)


def test_progress_only_grows():
    told = []
    time_in_rounds([lambda: lambda: time.sleep(0.001)] * 3, lambda: None, 0.1, lambda _, share: told.append(share))
    assert told == sorted(told)
    assert told[-1] <= 1.0
