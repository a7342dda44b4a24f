"""The fit behind the shipped stacks: reproducible, honest about what it left out, and of few numbers."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from txlplan import resources
from txlplan.calibration import Problem, fit_kernels, leave_out, refit
from txlplan.calibration._priors import PRIORS
from txlplan.hardware import KernelModel, Spread, stacks
from txlplan.validation import Published, predict, read_published

SHIPPED = resources.shipped("profiles")


@pytest.fixture(scope="module")
def runs() -> list[Published]:
    return [run for run in read_published(SHIPPED / "measurements" / "published.csv") if isinstance(run, Published)]


@pytest.fixture(scope="module")
def problem(runs) -> Problem:
    return Problem.of(runs)


@pytest.fixture(scope="module")
def few(runs) -> Problem:
    """Three devices, one of them known from scoring only."""
    chosen = ("t4", "rtx-a4500", "quadro-rtx-6000")
    return Problem.of([run for run in runs if run.cluster.device.id in chosen])


def test_a_fit_to_the_published_rows_gives_the_shipped_kernel_model(problem):
    shipped = asdict(stacks.get("nvidia-20.06-eager").kernels)
    found = asdict(refit(problem).kernels)
    assert found == pytest.approx(shipped, rel=0.01), f"ship in [kernels]: {found}"


def test_a_fit_to_the_published_peaks_gives_the_shipped_allocators(problem):
    found = refit(problem)
    assert len(found.reserved) == len(problem.peaks.names) == 6
    for each in found.stacks.values():
        fitted = asdict(each.reserved)
        shipped = asdict(stacks.get(each.id).reserved)
        assert fitted == pytest.approx(shipped, rel=0.01), f"ship in [reserved] of {each.id}: {fitted}"


def test_peaks_predict_as_an_estimate_does(problem):
    found = refit(problem)
    rows = predict(problem.runs, found.stacks)
    mine = ~np.isnan(problem.peaks.measured)
    assert mine.sum() == 45
    predicted = np.array([row.peak_memory_bytes.predicted for row in rows])[mine]
    assert problem.peaks.predicted(np.array(list(found.reserved.values())))[mine] == pytest.approx(predicted, rel=1e-6)
    errors = np.abs(predicted / problem.peaks.measured[mine] - 1)
    assert errors.mean() < 0.04
    assert errors.max() < 0.10


def test_weak_scaling_of_every_published_exchange_is_within_four_points(problem):
    predicted = problem.tokens_per_s(stacks.get("nvidia-20.06-eager").kernels)
    alone = {}
    for index, run in enumerate(problem.runs):
        if run.plan.data_parallel == 1 and run.workload.task == "train":
            alone[_setting(run)] = index
    shared = [(index, run) for index, run in enumerate(problem.runs) if run.gradient_sync == "ddp"]
    assert len(shared) == 15
    for index, run in shared:
        one, ranks = alone[_setting(run)], run.plan.data_parallel
        efficiency = [tokens[index] / tokens[one] / ranks for tokens in (predicted, problem.measured)]
        assert abs(efficiency[0] - efficiency[1]) < 0.04, run.id


def _setting(run: Published) -> tuple[object, ...]:
    return run.stack_name, run.cluster.device.id, run.workload.model.id, run.plan.precision, run.plan.micro_batch


def test_the_problem_predicts_as_an_estimate_does(few):
    kernels = stacks.get("nvidia-20.06-eager").kernels
    rows = predict(few.runs)
    assert few.tokens_per_s(kernels) == pytest.approx([row.tokens_per_s.predicted for row in rows])


def test_gradients_that_are_added_are_predicted_as_an_estimate_does(few):
    """Under our own code, which counts them; published stacks do not tell them apart."""
    kernels = stacks.get("nvidia-20.06-eager").kernels
    trained = next(run for run in few.runs if run.workload.task == "train" and run.plan.data_parallel == 1)
    run = replace(trained, stack_name="txlplan-cuda", plan=replace(trained.plan, accumulation=4))
    (row,) = predict([run], {"txlplan-cuda": replace(stacks.get("txlplan-cuda"), kernels=kernels)})
    assert Problem.of([run]).tokens_per_s(kernels) == pytest.approx([row.tokens_per_s.predicted])


def test_a_fit_explains_what_a_kernel_model_made(few):
    shipped = stacks.get("nvidia-20.06-eager").kernels
    true = replace(shipped, stream=0.85, host_op_s=36e-6, score_traffic=2.2)
    made = replace(few, measured=few.tokens_per_s(true))
    found = fit_kernels(made)
    assert np.abs(few.tokens_per_s(found) / made.measured - 1).mean() < 0.03
    assert found.host_op_s == pytest.approx(36e-6, rel=0.1)


def test_what_was_left_out_does_not_move_its_own_prediction(few):
    mine = np.array([run.cluster.device.id == "rtx-a4500" for run in few.runs])
    moved = replace(few, measured=np.where(mine, 3 * few.measured, few.measured))
    before, after = leave_out(few, "device"), leave_out(moved, "device")
    assert [row.id for row in before] == [run.id for run in few.runs]
    for index in np.flatnonzero(mine):
        assert after[index].tokens_per_s.predicted == before[index].tokens_per_s.predicted
        assert before[index].extrapolated
        width = before[index].tokens_per_s.high / before[index].tokens_per_s.low
        assert after[index].tokens_per_s.high / after[index].tokens_per_s.low == width, "nor its interval"
    assert any(after[index].tokens_per_s.predicted != before[index].tokens_per_s.predicted for index in np.flatnonzero(~mine))


def test_every_parameter_has_a_prior_and_a_place():
    assert list(PRIORS) == [field.name for field in fields(KernelModel)]


def test_shipped_stacks_hold_at_most_forty_fitted_numbers():
    """Each value once: the lambda stacks repeat theirs, since a profile has one base."""
    numbers = set()
    for path in Path(SHIPPED / "stacks").glob("*.toml"):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        numbers |= {(table, *item) for table in ("kernels", "reserved") for item in raw.get(table, {}).items()}
    spreads = ("time_log_sd", "memory_log_sd", "extrapolated_time_log_sd")
    assert {field.name for field in fields(Spread)} - set(spreads) == {"source", "extrapolated_memory_log_sd"}
    assert 27 < len(numbers) + len(spreads) <= 40
