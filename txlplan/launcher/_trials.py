"""Tune by trial: the best few plans run for real, shortly, each in processes of its own; the fastest one goes on."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from txlplan.errors import RunFailedError
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.launcher._execute import OnEvent, execute
from txlplan.launcher._run_directory import CHECKPOINTS_NAME, TRIALS_NAME, absolute, clear
from txlplan.plan_file import Plan, PlanFile
from txlplan.records import Record
from txlplan.units import counted, format_rate, format_s

MOST_TRIALS = 4
SHARE = 0.1
"""Largest share of the predicted run time that trials may take."""
WARMUP_STEPS = 2
LEAST_STEPS = 5
MOST_STEPS = 30
START_S = 6.0
"""Allowed for starting one worker: importing torch takes seconds. Only the number and length of trials depend on it."""
INDISTINCT = 0.02
"""A plan must be faster than the planner's choice by more than this share to be taken instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A plan that may be run, and what was predicted of it."""

    plan: Plan
    estimate: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """Which candidates are tried and for how many steps; fewer than two: none is."""

    candidates: tuple[Candidate, ...]
    steps: int
    reason: str
    budget_s: float = 0.0
    """No further trial begins once they have taken this long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What the trials decided."""

    winner: Candidate
    trials: tuple[Record, ...]
    reason: str
    stopped: bool = False
    """A person stopped a trial, and so the run."""


def schedule_trials(candidates: Sequence[Candidate], *, total_steps: int | None, share: float = SHARE) -> TrialPlan:
    """Choose what to try: the first candidate and those that its range cannot tell from it, within `share` of its run.

    `candidates` come best first. With n trials of s steps the cost is n · (start + s · step_s); the number of steps
    falls first, to a least one, then the number of trials.
    """
    first = candidates[0]
    rivals = [rival for rival in candidates[1:] if rival.estimate.tokens_per_s.high >= first.estimate.tokens_per_s.low]
    if not rivals:
        return TrialPlan(candidates=(first,), steps=0, reason="no trials: no other plan comes near the best one's range")
    if total_steps is None:
        return TrialPlan(candidates=(first,), steps=0, reason="no trials: the length of the run is not known")
    budget_s = share * total_steps * first.estimate.step_s.value
    for count in range(min(MOST_TRIALS, len(rivals) + 1), 1, -1):
        chosen = (first, *rivals[: count - 1])
        slowest_s = max(candidate.estimate.step_s.value for candidate in chosen)
        steps = min(MOST_STEPS, int((budget_s / count - START_S) / slowest_s))
        if steps >= WARMUP_STEPS + LEAST_STEPS:
            reason = f"{count} trials of {steps} steps, about {format_s(budget_s)} ({share:.0%} of the predicted run)"
            return TrialPlan(candidates=chosen, steps=steps, reason=reason, budget_s=budget_s)
    run_s = format_s(total_steps * first.estimate.step_s.value)
    return TrialPlan(candidates=(first,), steps=0, reason=f"no trials: a run of {run_s} is too short to gain from them")


def tune(
    plan_file: PlanFile,
    trial_plan: TrialPlan,
    *,
    parent: str,
    device: DeviceProfile | None = None,
    on_trial: Callable[[int, Candidate], OnEvent | None] | None = None,
) -> Tuned:
    """Run the trials (records of kind `trial`, whose parent is the run's id) and take the fastest plan.

    Trials end early when they take longer than was planned. `on_trial` is told of each trial before it starts and gives
    what is to see its events. Raises RunFailedError when every trial failed.
    """
    candidates = trial_plan.candidates
    if len(candidates) < 2:
        return Tuned(winner=candidates[0], trials=(), reason=trial_plan.reason)
    trials: list[Record] = []
    end_s = time.monotonic() + trial_plan.budget_s
    for number, candidate in enumerate(candidates, start=1):
        on_event = on_trial(number, candidate) if on_trial else None
        record = _try(plan_file, candidate, number, steps=trial_plan.steps, parent=parent, device=device, on_event=on_event)
        trials.append(record)
        if record.outcome == "stopped":
            return Tuned(winner=candidates[0], trials=tuple(trials), reason="stopped during a trial", stopped=True)
        if time.monotonic() > end_s and any(trial.outcome == "ok" for trial in trials):
            break
    return _decided(candidates, tuple(trials))


def _try(
    plan_file: PlanFile,
    candidate: Candidate,
    number: int,
    *,
    steps: int,
    parent: str,
    device: DeviceProfile | None,
    on_event: OnEvent | None,
) -> Record:
    directory = Path(absolute(plan_file).run.directory) / TRIALS_NAME / str(number)
    clear(directory)
    trial = dataclasses.replace(
        plan_file,
        plan=candidate.plan,
        data=dataclasses.replace(plan_file.data, evaluation_split=None),
        run=dataclasses.replace(plan_file.run, directory=str(directory), warmup_steps=WARMUP_STEPS),
    )
    record = execute(
        trial, estimate=candidate.estimate, kind="trial", parent=parent, steps=steps, on_event=on_event, device=device
    )
    shutil.rmtree(directory / CHECKPOINTS_NAME, ignore_errors=True)
    return record


def _decided(candidates: Sequence[Candidate], trials: tuple[Record, ...]) -> Tuned:
    """The fastest by median step; the planner's own choice where the fastest is hardly faster."""
    speeds = [median_tokens_per_s(trial) for trial in trials]
    measured = [(speed, -index) for index, speed in enumerate(speeds) if speed is not None]
    if not measured:
        raise RunFailedError(
            f"every trial failed; the first: {trials[0].message}", hint=f"`txlplan records show {trials[0].id}` has the rest"
        )
    best_speed, best_index = max(measured)[0], -max(measured)[1]
    if speeds[0] is not None and best_speed <= speeds[0] * (1 + INDISTINCT):
        best_index = 0
    chosen, speed = candidates[best_index], speeds[best_index]
    reason = f"{describe(chosen.plan)}: {format_rate(speed, 'tokens')} in its trial"
    if best_index == 0:
        reason += ", the planner's choice"
    else:
        first = "which failed" if speeds[0] is None else f"at {format_rate(speeds[0], 'tokens')}"
        reason += f", against the planner's choice {describe(candidates[0].plan)} {first}"
    return Tuned(winner=chosen, trials=trials, reason=reason)


def median_tokens_per_s(record: Record) -> float | None:
    """Tokens/s by the median step after warm-up: robust in a trial of few steps. None where the run did not end well."""
    steps = record.steady_steps()
    if record.outcome != "ok" or not steps or record.tokens_per_step is None:
        return None
    return record.tokens_per_step / median(steps)


def describe(plan: Plan) -> str:
    """A plan in a few words: `fp32, micro-batch 16 × 2, 1 device, 2 threads`."""
    accumulation = f" × {plan.accumulation}" if plan.accumulation > 1 else ""
    parts = [plan.precision, f"micro-batch {plan.micro_batch}{accumulation}"]
    parts += [f"{plan.n_devices} devices"] if plan.n_devices > 1 else []
    parts += [counted(plan.threads, "thread")] if plan.threads else []
    parts += ["activation checkpointing"] if plan.activation_checkpointing != "none" else []
    parts += ["compiled"] if plan.compile else []
    return ", ".join(parts)
