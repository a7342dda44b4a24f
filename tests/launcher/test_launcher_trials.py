"""Trials: how many fit the budget, which plan wins, and what is said of it. Runs are real processes (scripted workers)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lock_holder import LATE, hold

from txlplan.errors import RunFailedError
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.launcher import Candidate, describe, schedule_trials, tune
from txlplan.launcher._trials import LEAST_STEPS, MOST_STEPS, MOST_TRIALS, START_S, WARMUP_STEPS, TrialPlan
from txlplan.plan_file import Plan, PlanFile
from txlplan.records import open_store

MakeEstimate = Callable[..., Estimate]


def candidates(make_estimate: MakeEstimate, *rates: float, step_s: float = 0.1, share: float = 0.2) -> list[Candidate]:
    return [
        Candidate(plan=Plan(micro_batch=2**index), estimate=make_estimate(step_s=step_s, tokens_per_s=rate, share=share))
        for index, rate in enumerate(rates)
    ]


def test_plans_whose_range_lies_below_are_not_tried(make_estimate: MakeEstimate) -> None:
    found = schedule_trials(candidates(make_estimate, 100, 90, 50), total_steps=100_000)
    assert [candidate.plan.micro_batch for candidate in found.candidates] == [1, 2]


def test_nothing_comes_near_the_best(make_estimate: MakeEstimate) -> None:
    found = schedule_trials(candidates(make_estimate, 100, 50), total_steps=100_000)
    assert len(found.candidates) == 1
    assert "no other plan" in found.reason


def test_short_run_has_no_trials(make_estimate: MakeEstimate) -> None:
    found = schedule_trials(candidates(make_estimate, 100, 99), total_steps=200)
    assert (len(found.candidates), found.steps) == (1, 0)
    assert "too short" in found.reason


def test_length_unknown_has_no_trials(make_estimate: MakeEstimate) -> None:
    assert schedule_trials(candidates(make_estimate, 100, 99), total_steps=None).steps == 0


@given(step_s=st.floats(1e-3, 10), total_steps=st.integers(1, 10**6), rivals=st.integers(0, 8))
def test_trials_stay_within_their_share(step_s: float, total_steps: int, rivals: int) -> None:
    make = _plain_estimate
    found = schedule_trials(candidates(make, *[100.0] * (rivals + 1), step_s=step_s), total_steps=total_steps)
    if found.steps == 0:
        assert len(found.candidates) == 1
        return
    assert 2 <= len(found.candidates) <= MOST_TRIALS
    assert WARMUP_STEPS + LEAST_STEPS <= found.steps <= MOST_STEPS
    cost_s = len(found.candidates) * (START_S + found.steps * step_s)
    assert cost_s <= 0.1 * total_steps * step_s * (1 + 1e-9)


def _plain_estimate(step_s: float, tokens_per_s: float, share: float) -> Estimate:
    from txlplan.estimates import Range

    def around(value: float) -> Range:
        return Range(value=value, low=value * (1 - share), high=value * (1 + share))

    return Estimate(
        stack="local",
        step_s=around(step_s),
        tokens_per_s=around(tokens_per_s),
        peak_memory_bytes=around(1.0),
        capacity_bytes=1,
        fits=True,
        flops_per_step=1.0,
        mfu=None,
        energy_j_per_step=None,
        terms=(),
        extrapolated=False,
    )


SPEEDS = """
    from txlplan.plan_file import read_plan_file
    micro_batch = read_plan_file(Path(sys.argv[1])).plan.micro_batch
    step_s = {speeds}[micro_batch]
    start()
    if step_s is None:
        finish("oom", "out of memory in a trial")
    for number in range(1, int(sys.argv[3]) + 1):
        step(number, step_s if number > 2 else 5.0)
    (directory / "checkpoints").mkdir()
    finish("ok")
"""


def trial_plan(make_estimate: MakeEstimate) -> TrialPlan:
    return TrialPlan(candidates=tuple(candidates(make_estimate, 100, 99)), steps=7, reason="two trials", budget_s=60.0)


def tuned_with(
    speeds: dict[int, float | None],
    worker: Callable[[str], None],
    plan_file: PlanFile,
    cpu: DeviceProfile,
    make_estimate: MakeEstimate,
):
    worker(SPEEDS.format(speeds=speeds))
    return tune(plan_file, trial_plan(make_estimate), parent="the-run", device=cpu)


def test_fastest_plan_wins_and_says_why(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> None:
    tuned = tuned_with({1: 0.5, 2: 0.25}, worker, scripted_plan, cpu, make_estimate)
    assert tuned.winner.plan.micro_batch == 2
    assert "micro-batch 2: 400 tokens/s" in tuned.reason
    assert "200 tokens/s" in tuned.reason
    records = open_store().list(kind="trial", parent="the-run")
    assert [record.plan.micro_batch for record in records] == [2, 1]
    assert [len(record.step_s) for record in records] == [7, 7]
    assert not list(Path(scripted_plan.run.directory).rglob("checkpoints"))


def test_planners_choice_stays_where_another_is_hardly_faster(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> None:
    tuned = tuned_with({1: 0.5, 2: 0.495}, worker, scripted_plan, cpu, make_estimate)
    assert tuned.winner.plan.micro_batch == 1


def test_plan_that_runs_out_of_memory_loses(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> None:
    tuned = tuned_with({1: None, 2: 0.5}, worker, scripted_plan, cpu, make_estimate)
    assert tuned.winner.plan.micro_batch == 2
    assert "which failed" in tuned.reason


def test_every_trial_failed(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> None:
    with pytest.raises(RunFailedError, match="out of memory in a trial"):
        tuned_with({1: None, 2: None}, worker, scripted_plan, cpu, make_estimate)


def test_describe() -> None:
    plan = Plan(micro_batch=4, accumulation=2, precision="bf16", data_parallel=2, threads=3, activation_checkpointing="full")
    assert describe(plan) == "bf16, micro-batch 4 × 2, 2 devices, 3 threads, activation checkpointing"
    assert describe(dataclasses.replace(plan, accumulation=1, data_parallel=1, threads=None, activation_checkpointing="none"))


def test_trials_end_once_they_are_over_their_time(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> None:
    worker(SPEEDS.format(speeds={1: 0.5, 2: 0.25}))
    late = dataclasses.replace(trial_plan(make_estimate), budget_s=0.0)
    tuned = tune(scripted_plan, late, parent="the-run", device=cpu)
    assert (len(tuned.trials), tuned.winner.plan.micro_batch) == (1, 1)


def test_trial_waits_for_the_worker_of_a_killed_one(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> None:
    worker(SPEEDS.format(speeds={1: 0.5, 2: 0.25}))
    directory = Path(scripted_plan.run.directory) / "trials" / "1"
    holder = hold(directory)
    lock = (directory / ".lock").stat().st_ino
    statuses: list[int | None] = []
    tuned = tune(
        scripted_plan,
        trial_plan(make_estimate),
        parent="the-run",
        device=cpu,
        on_trial=lambda *_: lambda _: statuses.append(holder.poll()),
    )
    assert [trial.outcome for trial in tuned.trials] == ["ok", "ok"]
    assert set(statuses) == {0}
    assert (directory / ".lock").stat().st_ino == lock
    assert not (directory / LATE).exists()
