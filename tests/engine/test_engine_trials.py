"""Trials of several plans in one worker: who goes on, what is told, and that nothing of them is left."""

from __future__ import annotations

import dataclasses
import json

import pytest

from txlplan.config import to_plain
from txlplan.engine import checkpoint
from txlplan.engine.events import Step, Tried, Trying
from txlplan.engine.trials import FIRST_STEPS, MOST_STEPS, WARMUP_STEPS
from txlplan.plan_file import Plan

PLANS = (
    Plan(micro_batch=4, threads=1),
    Plan(micro_batch=2, accumulation=2, threads=1),
    Plan(micro_batch=4, threads=1, activation_checkpointing="full"),
)


@pytest.fixture
def tried(work, tmp_path):
    """`tried(plan_file, plans, seconds)`: what a worker tells of these trials."""

    def run(plan_file, plans=PLANS, seconds=60.0):
        path = tmp_path / "plans.json"
        path.write_text(json.dumps([to_plain(plan) for plan in plans]))
        return work(plan_file, "--trials", str(path), "--seconds", str(seconds))

    return run


def turns(ran):
    """Of each turn: whose, and how many steps it made."""
    found = []
    for event in ran.events:
        if isinstance(event, Trying):
            found.append([event.candidate, 0])
        elif isinstance(event, Step):
            found[-1][1] += 1
    return found


def test_the_faster_half_goes_on_twice_as_long_and_the_last_rival_to_the_end(plan_of, tried):
    ran = tried(plan_of())
    assert ran.exit_code == 0
    assert turns(ran)[:3] == [[number, WARMUP_STEPS + FIRST_STEPS] for number in range(3)]
    later = turns(ran)[3:]
    assert [steps for _, steps in later] == [4, 4, 8, 8, MOST_STEPS, MOST_STEPS]
    assert [number for number, _ in later[::2]] == [0, 0, 0]
    assert len({number for number, _ in later[1::2]}) == 1
    assert sorted(event.candidate for event in ran.of(Tried)) == [0, 1, 2]
    assert {event.outcome for event in ran.of(Tried)} == {"ok"}
    assert {event.tokens for event in ran.of(Step)} == {4 * 8}
    assert checkpoint.newest(ran.directory) is None


def test_the_plan_to_be_beaten_takes_part_in_every_round_however_slow(plan_of, tried):
    """Sixteen sequences one after the other, against two plans that make fewer and larger micro-batches."""
    splits = ((1, 16), (16, 1), (4, 4))
    plans = [Plan(micro_batch=size, accumulation=count, threads=1) for size, count in splits]
    found = turns(tried(plan_of(), plans))
    assert [number for number, _ in found[:3]] == [0, 1, 2]
    assert [number for number, _ in found[3:5]] in ([0, 1], [0, 2])


def test_starting_counts_as_time_for_trials(plan_of, work, tmp_path):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps([to_plain(plan) for plan in PLANS]))
    ran = work(plan_of(), "--trials", str(path), "--seconds", "60", age_s=60.0)
    assert turns(ran) == [[0, WARMUP_STEPS + 1]]


def test_when_the_time_is_over_the_first_plan_has_been_measured_all_the_same(plan_of, tried):
    ran = tried(plan_of(), seconds=0.0)
    assert turns(ran) == [[0, WARMUP_STEPS + 1]]
    assert [event.candidate for event in ran.of(Tried)] == [0]


def test_a_plan_that_cannot_run_is_told_and_left_behind(plan_of, tried):
    """More sequences than the split has tokens for."""
    ran = tried(plan_of(), [PLANS[0], Plan(micro_batch=100_000, threads=1)])
    assert ran.exit_code == 0
    assert {event.candidate: event.outcome for event in ran.of(Tried)} == {0: "ok", 1: "failed"}
    assert turns(ran) == [[0, WARMUP_STEPS + FIRST_STEPS], [1, 0]]
    assert "100000" in next(event.message for event in ran.of(Tried) if event.candidate == 1).replace(",", "")


def test_where_the_first_plan_cannot_run_its_only_rival_has_nobody_to_beat(plan_of, tried):
    ran = tried(plan_of(), [Plan(micro_batch=100_000, threads=1), PLANS[0]])
    assert turns(ran) == [[0, 0], [1, WARMUP_STEPS + FIRST_STEPS]]


def test_a_plan_that_is_far_slower_is_left_after_one_step_where_more_would_take_long(plan_of, tried):
    """Sixty-four sequences at once, and one after the other; of a longer time the few steps are worth it."""
    plans = [Plan(micro_batch=64, threads=1), Plan(micro_batch=1, accumulation=64, threads=1)]
    assert turns(tried(plan_of(), plans, seconds=600.0))[1] == [1, WARMUP_STEPS + FIRST_STEPS]
    assert turns(tried(plan_of(), plans, seconds=2.0))[1] == [1, 1]  # torch is loaded by now


@pytest.mark.parametrize("task", ["score", "generate"])
def test_scoring_and_generating_are_tried_with_the_weights(plan_of, work, tried, tmp_path, task):
    trained = work(plan_of(steps=1))
    plan_file = plan_of(
        steps=None, workload={"task": task}, data={"split": "valid"}, run={"checkpoint": str(trained.directory)}
    )
    plan_file = dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, directory=str(tmp_path / "tried")))
    ran = tried(plan_file, [Plan(micro_batch=2, threads=1), Plan(micro_batch=2, threads=1, precision="bf16")])
    assert ran.exit_code == 0
    assert {event.outcome for event in ran.of(Tried)} == {"ok"}
    assert all(event.tokens <= 2 * 8 for event in ran.of(Step))
