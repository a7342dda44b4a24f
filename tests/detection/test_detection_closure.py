"""Real workers against the cost model: what is fitted to their peaks gives these peaks back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.cost import estimate
from txlplan.data import prepare
from txlplan.detection import _worker as worker_module
from txlplan.detection._closure import closed
from txlplan.detection._worker import SMALL, WorkerRun, Workers, run_workers
from txlplan.detection._worker import _run as _run_worker
from txlplan.errors import TxlplanError
from txlplan.hardware import Cluster, devices, stacks, systems
from txlplan.plan_file import Plan
from txlplan.workload import Workload

_SYSTEM, _DEVICE, _STACK = systems.get("generic-cpu"), devices.get("generic-cpu"), stacks.get("txlplan-cpu")


def _run(batch, peak_memory_bytes, step_s=1.0, task="train", beside_s=5.0):
    plan = Plan(micro_batch=batch, precision="fp32", threads=2)
    return WorkerRun(
        workload=Workload(model=SMALL, task=task),
        plan=plan,
        peak_memory_bytes=peak_memory_bytes,
        step_s=step_s,
        beside_s=beside_s,
    )


def _estimate(stack, run, device=_DEVICE):
    return estimate(run.workload, Cluster(system=_SYSTEM, device=device), stack, [run.plan])[0]


@settings(max_examples=20, deadline=None)
@given(single_mib=st.integers(450, 700), more_mib=st.integers(300, 900), reading_mib=st.integers(300, 440))
def test_all_peaks_come_back(single_mib, more_mib, reading_mib):
    single, many = _run(1, single_mib << 20), _run(32, (single_mib + more_mib) << 20)
    reading = [_run(batch, (reading_mib + 5 * batch) << 20, task="score") for batch in (1, 32)]
    workers = Workers(single=single, many=many, reading_single=reading[0], reading_many=reading[1])
    stack, _ = closed(_SYSTEM, _DEVICE, _STACK, workers)
    for run in (single, many, *reading):
        assert _estimate(stack, run).peak_memory_bytes.value == pytest.approx(run.peak_memory_bytes, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "factor", "notes"),
    [
        *(("cpu", factor, notes) for factor, notes in ((0.5, 1), (0.9, 0), (1.0, 0), (1.3, 0), (1.4, 1), (3.0, 1))),
        *(("gpu", factor, notes) for factor, notes in ((0.5, 1), (0.9, 0), (1.42, 0), (1.47, 1), (3.0, 1))),
        *(("tpu", factor, notes) for factor, notes in ((1.3, 0), (1.4, 1))),
    ],
)
def test_a_whole_step_moves_training_half_way_unless_the_machine_was_another(kind, factor, notes):
    """And widens the range, of what other tasks take too."""
    device = replace(_DEVICE, kind=kind)
    runs = [_run(32, 1 << 30, task=task) for task in ("train", "score")]
    train_s, score_s = (_estimate(_STACK, run, device).step_s.value for run in runs)
    workers = Workers(single=_run(1, 500 << 20), many=_run(32, 1 << 30, step_s=factor * train_s))
    stack, told = closed(_SYSTEM, device, _STACK, workers)
    moved = 1.0 if notes else factor**0.5
    assert _estimate(stack, runs[0], device).step_s.value == pytest.approx(moved * train_s, rel=1e-3)
    assert _estimate(stack, runs[1], device).step_s.value == pytest.approx(score_s)
    spread = stack.spread
    assert f"{factor:.2f} times its operations" in spread.source
    assert spread.time_log_sd == pytest.approx(_STACK.spread.time_log_sd) if factor == 1 else spread.time_log_sd > 0.5
    assert len(told) == notes
    assert all("hardware probe" in note for note in told)


def test_what_a_worker_takes_besides_its_steps_is_that_of_the_one_that_ran_alone():
    single, many = _run(1, 500 << 20, beside_s=4.0), _run(32, 1 << 30, beside_s=7.0)
    assert closed(_SYSTEM, _DEVICE, _STACK, Workers(single=single, many=many))[0].worker_s == 7.0


def test_without_workers_the_stack_stays_as_it_is():
    assert closed(_SYSTEM, _DEVICE, _STACK, Workers()) == (_STACK, ())
    assert closed(_SYSTEM, _DEVICE, replace(_STACK, spread=None), Workers())[0].spread is None


def test_workers_that_take_too_long_are_given_up():
    workers = run_workers("cpu", threads=1, precision="fp32", budget_s=0.2)
    assert workers == Workers(notes=workers.notes)
    assert "longer than" in workers.notes[0]


@pytest.mark.parametrize(("failing", "there"), [("score", {"single", "many"}), ("train", set())])
def test_a_worker_that_fails_leaves_what_others_showed(monkeypatch, failing, there):
    def run(directory, where, plan, task, timeout_s, *, alone):
        if task == failing:
            raise TxlplanError("no room")
        return _run(plan.micro_batch, 1 << 30, task=task)

    monkeypatch.setattr(worker_module, "_run", run)
    workers = run_workers("cpu", threads=1, precision="fp32", budget_s=60.0)
    names = ("single", "many", "reading_single", "reading_many")
    assert {name for name in names if getattr(workers, name) is not None} == there
    assert [note.endswith("measured: no room") for note in workers.notes] == [True]
    stack, _ = closed(_SYSTEM, _DEVICE, _STACK, workers)
    assert (stack.worker_s is None) == (not there)
    assert stack.reading_context_bytes == _STACK.reading_context_bytes


def test_what_the_many_show_is_kept_without_the_single():
    train_s = _estimate(_STACK, _run(32, 1 << 30)).step_s.value
    many = _run(32, 1 << 30, step_s=1.1 * train_s, beside_s=7.0)
    stack, _ = closed(_SYSTEM, _DEVICE, _STACK, Workers(many=many))
    assert stack.worker_s == 7.0
    assert stack.context_bytes == _STACK.context_bytes
    assert "train" in stack.unattributed_by_task


def test_a_real_worker_tells_its_memory_and_time(tmp_path):
    (tmp_path / "text.txt").write_text("a line of text\n" * 500)
    prepare([tmp_path / "text.txt"], tmp_path / "data", processes=1)
    run = _run_worker(tmp_path, "cpu", Plan(micro_batch=1, threads=1), "train", timeout_s=60.0)
    assert 100 << 20 < run.peak_memory_bytes < 2 << 30
    assert 0 < run.step_s < 10
    assert 0.5 < run.beside_s < 60.0 - 11 * run.step_s


def test_a_worker_that_fails_says_why(tmp_path):
    with pytest.raises(TxlplanError, match="data"):
        _run_worker(tmp_path, "cpu", Plan(micro_batch=1, threads=1), "train", timeout_s=60.0)
