"""A benchmark against an earlier one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from record_factory import make_model, make_record

from txlplan.benchmarks import Case, baseline, changes
from txlplan.errors import InputError, RecordError
from txlplan.plan_file import Plan
from txlplan.records import Record, open_store

CASE = Case(model=make_model(), plan=Plan(micro_batch=16, threads=2))


def runs(factor: float, seed: int, *, repeats: int = 3, noise: float = 0.02, between: float = 0.005) -> list[Record]:
    """Repeats of 40 steps of about 0.1 s × `factor`, which differ among themselves by `between`."""
    source = random.Random(seed)
    found = []
    for number in range(repeats):
        level = 0.1 * factor * source.gauss(1.0, between)
        steps = tuple(level * source.gauss(1.0, noise) for _ in range(43))
        found.append(replace(make_record(seed * 100 + number, steps=3), kind="bench", parent=f"bench-{seed}", step_s=steps))
    return found


def test_a_clear_slowdown_is_found_and_measured() -> None:
    (found,) = changes([CASE], runs(1.10, 1), runs(1.0, 2))
    assert found.change == pytest.approx(1 / 1.10 - 1, abs=0.015)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.change < found.high < 0
    assert found.slower_by(0.05)
    assert not found.slower_by(0.2)
    (faster,) = changes([CASE], runs(0.9, 1), runs(1.0, 2))
    assert faster.change is not None
    assert faster.change > 0.05
    assert not faster.slower_by(0.0)


def test_noise_alone_does_not_fail() -> None:
    """Of 30 pairs without a change, at most a few are called slower by more than one per cent."""
    called = sum(changes([CASE], runs(1.0, seed), runs(1.0, seed + 500))[0].slower_by(0.01) for seed in range(1, 31))
    assert called <= 2


def test_the_interval_holds_the_truth_and_narrows_with_less_noise() -> None:
    held = 0
    for seed in range(1, 21):
        (found,) = changes([CASE], runs(1.03, seed, repeats=8), runs(1.0, seed + 500, repeats=8))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1 / 1.03 - 1 <= found.high
    assert held >= 16
    (noisy,) = changes([CASE], runs(1.0, 1, between=0.05), runs(1.0, 2, between=0.05))
    (quiet,) = changes([CASE], runs(1.0, 1, between=0.001), runs(1.0, 2, between=0.001))
    assert noisy.high - noisy.low > 2 * (quiet.high - quiet.low)  # type: ignore[operator]


def test_cases_are_paired_by_model_plan_and_task() -> None:
    other = Case(model=make_model(), plan=Plan(micro_batch=8, threads=2))
    found = changes([CASE, other], runs(1.0, 1), runs(1.0, 2))
    assert [change.case for change in found] == [CASE]
    with pytest.raises(InputError, match="none of these cases"):
        changes([other], runs(1.0, 1), runs(1.0, 2))
    scored = [replace(record, workload=replace(record.workload, task="score")) for record in runs(1.0, 2)]
    with pytest.raises(InputError, match="none of these cases"):
        changes([CASE], runs(1.0, 1), scored)


def test_a_case_that_fails_now_is_slower() -> None:
    failed = [replace(record, outcome="oom", step_s=()) for record in runs(1.0, 1)]
    (found,) = changes([CASE], failed, runs(1.0, 2))
    assert found.change is None
    assert found.slower_by(0.5)


def test_few_repeats_and_other_devices_are_said() -> None:
    elsewhere = [replace(record, device=replace(record.device, name="another")) for record in runs(1.0, 2, repeats=1)]
    (found,) = changes([CASE], runs(1.0, 1), elsewhere)
    assert len(found.notes) == 2
    assert "1 repeats before and 3 now" in found.notes[0]
    assert found.notes[1] == "measured on different devices"


def test_the_baseline_is_a_benchmark_or_a_record() -> None:
    store = open_store()
    store.put_all([*runs(1.0, 2), replace(make_record(7, steps=3), step_s=(), outcome="failed")])
    assert len(baseline(store, "bench-2")) == 3
    (first, *_) = baseline(store, "bench-2")
    assert [record.id for record in baseline(store, first.id)] == [first.id]
    with pytest.raises(RecordError):
        baseline(store, "nothing-like-it")
    failed = store.list(outcome="failed")[0]
    with pytest.raises(RecordError, match="no finished run"):
        baseline(store, failed.id)
