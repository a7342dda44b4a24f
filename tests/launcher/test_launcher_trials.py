"""Trials: how many fit the budget, which plan wins, what is remembered. Runs are real processes (scripted workers)."""

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
from txlplan.launcher import Budget, Candidate, Tuned, describe, known_speeds, schedule_trials, tune
from txlplan.launcher._trials import LEAST_STEPS, MOST_S, MOST_TRIALS, SHARE, TELLING_STEPS, WORKER_S, Speed, near
from txlplan.plan_file import Plan, PlanFile
from txlplan.records import open_store

MakeEstimate = Callable[..., Estimate]


def candidates(make_estimate: MakeEstimate, *rates: float, step_s: float = 0.1, share: float = 0.2) -> list[Candidate]:
    return [
        Candidate(plan=Plan(micro_batch=2**index), estimate=make_estimate(step_s=step_s, tokens_per_s=rate, share=share))
        for index, rate in enumerate(rates)
    ]


def test_plans_whose_range_lies_below_or_that_take_other_devices_are_not_tried(make_estimate: MakeEstimate) -> None:
    found = candidates(make_estimate, 100, 90, 50, 95)
    elsewhere = dataclasses.replace(found[3], plan=Plan(micro_batch=1, data_parallel=2))
    assert near([*found[:3], elsewhere]) == tuple(found[:2])


def test_nothing_comes_near_the_best(make_estimate: MakeEstimate) -> None:
    found = schedule_trials(candidates(make_estimate, 100), total_steps=100_000, budget=Budget())
    assert len(found.candidates) == 1
    assert "no other plan" in found.reason


def test_short_run_has_no_trials(make_estimate: MakeEstimate) -> None:
    found = schedule_trials(candidates(make_estimate, 100, 99), total_steps=1000, budget=Budget())
    assert (len(found.candidates), found.seconds) == (1, 0)
    assert "too short" in found.reason
    asked = schedule_trials(candidates(make_estimate, 100, 99), total_steps=2000, budget=Budget(seconds=10))
    assert (len(asked.candidates), asked.seconds) == (2, 10)


def test_what_a_worker_takes_besides_its_steps_leaves_time_for_trials_or_does_not(make_estimate: MakeEstimate) -> None:
    found, budget = candidates(make_estimate, 100, 99, step_s=0.1), Budget(seconds=WORKER_S + 1)
    for worker_s, tried in ((None, 2), (2.0, 2), (WORKER_S + 0.5, 1), (20.0, 1)):
        assert len(schedule_trials(found, total_steps=None, budget=budget, worker_s=worker_s).candidates) == tried


def test_length_unknown_has_no_trials_unless_they_are_asked_for(make_estimate: MakeEstimate) -> None:
    found = candidates(make_estimate, 100, 99)
    assert len(schedule_trials(found, total_steps=None, budget=Budget()).candidates) == 1
    assert len(schedule_trials(found, total_steps=None, budget=Budget(seconds=30)).candidates) == 2


@given(step_s=st.floats(1e-3, 10), total_steps=st.integers(1, 10**6), rivals=st.integers(0, 8))
def test_trials_stay_within_their_share(step_s: float, total_steps: int, rivals: int) -> None:
    every = candidates(_plain_estimate, *[100.0] * (rivals + 1), step_s=step_s)
    found = schedule_trials(near(every), total_steps=total_steps, budget=Budget())
    if found.seconds == 0:
        assert len(found.candidates) == 1
        return
    assert len(found.candidates) == min(rivals + 1, MOST_TRIALS)
    assert found.seconds == pytest.approx(min(MOST_S, SHARE * total_steps * step_s))
    assert WORKER_S + 2 * LEAST_STEPS * step_s <= found.seconds * (1 + 1e-9)


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
    import json
    plans = json.loads(Path(sys.argv[3]).read_text())
    speeds = {speeds}
    start()
    for turn in range(2):
        for number, plan in enumerate(plans):
            step_s = speeds[plan["micro_batch"]]
            tell(events.Trying(candidate=number, steps=2))
            if step_s == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if step_s is None:
                tell(events.Tried(candidate=number, outcome="oom", message="out of memory in a trial"))
                continue
            for count in range(turn, 3):
                step(count, step_s if count or turn else 5.0)
    for number, plan in enumerate(plans):
        if speeds[plan["micro_batch"]] is not None:
            tell(events.Tried(candidate=number, outcome="ok"))
    finish("ok")
"""


@pytest.fixture
def tuned_with(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, make_estimate: MakeEstimate
) -> Callable[..., Tuned]:
    """`tuned_with({1: 0.5, 2: 0.25})`: what trials decide whose plans of micro-batch 1 and 2 take such steps of 100 tokens."""

    def run(speeds: dict[int, object], **options: object) -> Tuned:
        worker(SPEEDS.format(speeds=speeds))
        arguments = {"total_steps": 10_000, "budget": Budget(), "parent": "the-run", "device": cpu} | options
        rates = [100.0 - index for index in range(len(speeds))]
        return tune(scripted_plan, candidates(make_estimate, *rates), **arguments)  # type: ignore[arg-type]

    return run


def test_fastest_plan_wins_and_says_why(tuned_with: Callable[..., Tuned]) -> None:
    tuned = tuned_with({1: 0.5, 2: 0.25})
    assert tuned.winner.plan.micro_batch == 2
    assert "micro-batch 2, fast attention: 400 tokens/s" in tuned.reason
    assert "200 tokens/s" in tuned.reason
    records = open_store().list(kind="trial", parent="the-run")
    assert sorted(record.plan.micro_batch for record in records) == [1, 2]
    assert {record.id for record in records} == {record.id for record in tuned.trials}
    assert [(len(record.step_s), len(record.steady_steps()), record.outcome) for record in records] == [(5, 4, "ok")] * 2


def test_the_planners_choice_stays_when_nothing_is_clearly_faster(tuned_with: Callable[..., Tuned]) -> None:
    assert tuned_with({1: 0.5, 2: 0.495}).winner.plan.micro_batch == 1


def test_a_plan_is_clearly_faster_where_it_is_by_more_than_its_steps_differ() -> None:
    speeds = (Speed(median=m, low=m - d, high=m + d, steps=TELLING_STEPS) for m, d in ((100, 1), (90, 1), (110, 15)))
    steady, slower, restless = speeds
    assert steady.beats(slower)
    assert not dataclasses.replace(steady, steps=TELLING_STEPS - 1).beats(slower)
    assert not steady.beats(dataclasses.replace(slower, steps=TELLING_STEPS - 1))
    assert not restless.beats(steady)
    assert not steady.beats(steady)


def test_plan_that_runs_out_of_memory_loses(tuned_with: Callable[..., Tuned]) -> None:
    tuned = tuned_with({1: None, 2: 0.5})
    assert tuned.winner.plan.micro_batch == 2
    assert "which failed" in tuned.reason
    assert [trial.outcome for trial in tuned.trials] == ["oom", "ok"]


def test_every_trial_failed(tuned_with: Callable[..., Tuned]) -> None:
    with pytest.raises(RunFailedError, match="out of memory in a trial"):
        tuned_with({1: None, 2: None})


def test_a_plan_that_kills_the_worker_leaves_what_was_measured_before(tuned_with: Callable[..., Tuned]) -> None:
    tuned = tuned_with({1: 0.5, 2: "killed"})
    assert tuned.winner.plan.micro_batch == 1
    assert [trial.outcome for trial in tuned.trials] == ["ok", "failed"]
    assert "SIGKILL" in tuned.trials[1].message


def test_what_was_tried_before_is_not_tried_again(
    tuned_with: Callable[..., Tuned], scripted_plan: PlanFile, cpu: DeviceProfile
) -> None:
    tuned_with({1: 0.5, 2: 0.25})
    known = known_speeds(open_store(), scripted_plan, cpu)
    assert {plan: speed.median for plan, speed in known.items()} == {Plan(micro_batch=1): 200.0, Plan(micro_batch=2): 400.0}
    again = tuned_with({1: 0.5, 2: 0.25}, known=known)
    assert (again.winner.plan.micro_batch, again.trials) == (2, ())
    assert "for an earlier run" in again.reason
    wider = tuned_with({1: 0.5, 2: 0.25, 4: 0.2}, known=known)
    assert [trial.plan.micro_batch for trial in wider.trials] == [2, 4]
    assert wider.winner.plan.micro_batch == 4


def test_another_device_model_or_optimizer_has_learnt_nothing(
    tuned_with: Callable[..., Tuned], scripted_plan: PlanFile, cpu: DeviceProfile
) -> None:
    tuned_with({1: 0.5, 2: 0.25})
    workload = scripted_plan.workload
    wider = dataclasses.replace(workload, model=dataclasses.replace(workload.model, d_inner=64))
    lamb = dataclasses.replace(workload, optimization=dataclasses.replace(workload.optimization, optimizer="lamb"))
    for other in (wider, lamb):
        assert known_speeds(open_store(), dataclasses.replace(scripted_plan, workload=other), cpu) == {}
    assert known_speeds(open_store(), scripted_plan, dataclasses.replace(cpu, id="another")) == {}
    assert known_speeds(open_store(), dataclasses.replace(scripted_plan, stack="another"), cpu) == {}


def test_describe() -> None:
    plan = Plan(micro_batch=4, accumulation=2, precision="bf16", data_parallel=2, threads=3, activation_checkpointing="full")
    assert describe(plan) == "bf16, micro-batch 4 × 2, 2 devices, 3 threads, activation checkpointing, fast attention"
    assert describe(dataclasses.replace(plan, accumulation=1, data_parallel=1, threads=None, activation_checkpointing="none"))


def test_trials_wait_for_the_worker_of_a_killed_one(tuned_with: Callable[..., Tuned], scripted_plan: PlanFile) -> None:
    directory = Path(scripted_plan.run.directory) / "trials"
    holder = hold(directory)
    lock = (directory / ".lock").stat().st_ino
    statuses: list[int | None] = []
    tuned = tuned_with({1: 0.5, 2: 0.25}, on_trial=lambda *_: lambda _: statuses.append(holder.poll()))
    assert [trial.outcome for trial in tuned.trials] == ["ok", "ok"]
    assert set(statuses) == {0}
    assert (directory / ".lock").stat().st_ino == lock
    assert not (directory / LATE).exists()
