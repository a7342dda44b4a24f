"""Medians, spreads, what is missing, and an unsteady machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.benchmarks import Case, spread, summarise
from txlplan.benchmarks._bench import missing
from txlplan.benchmarks._stability import Reference, keep, kept, measure, notes
from txlplan.hardware import DeviceProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.records import Environment, Record
from txlplan.workload import Workload


def make_record(case: Case, outcome: Any = "ok", **changes: Any) -> Record:
    device = DeviceProfile(
        id="cpu",
        name="CPU",
        kind="cpu",
        vendor="v",
        architecture="a",
        memory_bytes=1,
        memory_bandwidth_bytes_per_s=1.0,
        peak_flops_per_s={"fp32": 1e12},
        cores=1,
    )
    record = Record(
        id="x",
        created_at="2026-01-01T00:00:00Z",
        outcome=outcome,
        workload=Workload(model=case.model),
        plan=case.plan,
        system="s",
        stack="s",
        device=device,
        environment=Environment(python="3", torch=None, operating_system="o", hostname="h"),
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture
def two_cases(tiny_model: ModelConfig) -> tuple[Case, Case]:
    return Case(model=tiny_model, plan=Plan(micro_batch=4)), Case(model=tiny_model, plan=Plan(micro_batch=8))


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=20))
def test_spread_is_numpys(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert found.median == pytest.approx(np.median(values))
    assert found.mad == pytest.approx(np.median(np.abs(np.array(values) - np.median(values))))
    if len(values) > 1:
        low, high = np.quantile(values, [0.25, 0.75])
        assert found.iqr == pytest.approx(high - low, abs=1e-6)


def test_spread_of_nothing() -> None:
    assert spread([]) is None
    assert spread([3.0]).iqr is None


def test_repeats_are_interleaved(two_cases: tuple[Case, Case]) -> None:
    order = [(repeat.case.plan.micro_batch, repeat.number, repeat.position) for repeat in missing(two_cases, 2, [])]
    assert order == [(4, 1, 1), (8, 1, 2), (4, 2, 3), (8, 2, 4)]


def test_recorded_repeats_are_skipped_and_failed_ones_are_not(two_cases: tuple[Case, Case]) -> None:
    records = [make_record(two_cases[0]), make_record(two_cases[1], "failed"), make_record(two_cases[1], "stopped")]
    left = missing(two_cases, 2, records)
    assert [(repeat.case.plan.micro_batch, repeat.number) for repeat in left] == [(8, 1), (4, 2), (8, 2)]


def test_out_of_memory_is_final(two_cases: tuple[Case, Case]) -> None:
    left = missing(two_cases, 3, [make_record(two_cases[0], "oom")])
    assert {repeat.case.plan.micro_batch for repeat in left} == {8}


def test_rows_hold_medians_of_good_repeats(two_cases: tuple[Case, Case]) -> None:
    records = [
        make_record(two_cases[0], tokens_per_s=value, step_s=(9.0, 1.0, 2.0, 3.0), warmup_steps=1, peak_memory_bytes=10)
        for value in (100.0, 300.0, 200.0)
    ]
    first, second = summarise(two_cases, [*records, make_record(two_cases[1], "oom", message="out of memory")])
    assert (first.repeats, first.outcome) == (3, "ok")
    assert first.tokens_per_s.median == median((100.0, 300.0, 200.0))
    assert first.step_s.median == 2.0
    assert (second.repeats, second.failed, second.outcome, second.message) == (0, 1, "oom", "out of memory")
    assert second.tokens_per_s is None
    assert second.tokens_error is None


def test_steady_idle_machine_needs_no_note() -> None:
    assert (
        notes([Reference(product_s=0.01, busy=0.01, load_1min=0.1), Reference(product_s=0.0105, busy=0.0, load_1min=None)])
        == ()
    )


def test_drift_and_company_are_noted() -> None:
    found = notes([Reference(product_s=0.010, busy=0.6, load_1min=2.0), Reference(product_s=0.014, busy=0.4, load_1min=2.0)])
    assert "unstable machine" in found[0]
    assert "40%" in found[0]
    assert "busy machine" in found[1]
    assert "50%" in found[1]


def test_references_survive_an_unfinished_line(tmp_path: Path) -> None:
    reference = measure()
    assert reference.product_s > 0
    assert 0 <= reference.busy <= 1
    keep(tmp_path, reference)
    with (tmp_path / "reference.jsonl").open("a") as stream:
        stream.write('{"product_s": 0.0')
    assert kept(tmp_path) == [reference]
    keep(tmp_path, reference)
    assert kept(tmp_path) == [reference, reference]
