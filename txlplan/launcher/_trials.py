"""Tune by trial: the best few plans make real steps in one worker, and what they showed is kept for the next run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from txlplan.errors import RunFailedError
from txlplan.hardware import DeviceProfile
from txlplan.launcher._candidate import Candidate, describe
from txlplan.launcher._race import WARMUP_STEPS, OnTrial, race
from txlplan.plan_file import Plan, PlanFile
from txlplan.records import Record, Store, environment
from txlplan.units import counted, format_rate, format_s

MOST_TRIALS = 8
SHARE = 0.03
"""Largest share of the predicted run time that trials may take, where nobody says how long they may."""
MOST_S = 60.0
"""And the longest that they take however long the run."""
LEAST_STEPS = WARMUP_STEPS + 2
"""Of the first plan and one rival, without which there are no trials."""
WORKER_S = 6.3
"""What the worker takes besides its steps, where the stack does not say: on 2 cores of an AMD EPYC (Zen 3) 3.3 s until it has
started, 1.9 to set up the first plan and 1.1 to end (torch 2.13, 2026-11-27). Only whether there are trials depends on it."""
INDISTINCT = 0.02
"""A plan must be faster than the planner's choice by more than this share to be taken instead, and clearly (`Speed`)."""
TELLING_STEPS = 4
"""Of both plans, before one is taken instead of the planner's choice: steps of two turns at least, for those of one turn are
fast or slow together where a machine drifts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How long trials may take: `seconds`, or where that is None the smaller of MOST_S and a share of the predicted run."""

    seconds: float | None = None
    share: float = SHARE

    def of(self, run_s: float) -> float:
        """Seconds, for a run of a predicted length."""
        return min(MOST_S, self.share * run_s) if self.seconds is None else self.seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """Which candidates are tried and for how long together, the worker's start included; fewer than two: none is."""

    candidates: tuple[Candidate, ...]
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Of the steps of a trial, tokens/s: the median, and the quartiles around it."""

    median: float
    low: float
    high: float
    steps: int

    @classmethod
    def of(cls, record: Record) -> Speed | None:
        """Of the steps after warm-up; None where the trial did not end well."""
        steps = record.steady_steps()
        if record.outcome != "ok" or not steps or record.tokens_per_step is None:
            return None
        low, middle, high = record.tokens_per_step / np.quantile(steps, (0.75, 0.5, 0.25))
        return cls(median=float(middle), low=float(low), high=float(high), steps=len(steps))

    def beats(self, other: Speed) -> bool:
        """Whether it is faster by more than INDISTINCT, and by more than the steps of either differ among themselves, of which
        there are enough to say so."""
        told = min(self.steps, other.steps) >= TELLING_STEPS
        return told and self.median > other.median * (1 + INDISTINCT) and self.low > other.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What the trials decided."""

    winner: Candidate
    trials: tuple[Record, ...]
    reason: str
    stopped: bool = False
    """A person stopped a trial, and so the run."""


def near(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The first candidate and those of as many devices that its range cannot tell from it. `candidates` come best first."""
    first = candidates[0]
    least = first.estimate.tokens_per_s.low
    rivals = [
        rival
        for rival in candidates[1:]
        if rival.plan.n_devices == first.plan.n_devices and rival.estimate.tokens_per_s.high >= least
    ]
    return (first, *rivals[: MOST_TRIALS - 1])


def schedule_trials(
    candidates: Sequence[Candidate], *, total_steps: int | None, budget: Budget, worker_s: float | None = None
) -> TrialPlan:
    """What to try within the budget: all candidates, as many of which as there is time for (`engine.trials`), or none.

    A trial of the first two costs `worker_s` (None: not measured) and LEAST_STEPS steps of each, by their predicted times.
    """
    first = candidates[0]
    if len(candidates) < 2:
        return TrialPlan(candidates=(first,), seconds=0, reason="no trials: no other plan comes near the best one's range")
    if total_steps is None and budget.seconds is None:
        return TrialPlan(candidates=(first,), seconds=0, reason="no trials: the length of the run is not known")
    run_s = (total_steps or 0) * first.estimate.step_s.value
    budget_s = budget.of(run_s)
    beside_s = WORKER_S if worker_s is None else worker_s
    if beside_s + LEAST_STEPS * sum(candidate.estimate.step_s.value for candidate in candidates[:2]) <= budget_s:
        share = f" ({budget_s / run_s:.1%} of the predicted run)" if run_s else ""
        reason = f"trials of up to {counted(len(candidates), 'plan')}, at most {format_s(budget_s)}{share}"
        return TrialPlan(candidates=tuple(candidates), seconds=budget_s, reason=reason)
    short = f"{format_s(budget_s)} are too few" if budget.seconds is not None else f"a run of {format_s(run_s)} is too short"
    return TrialPlan(candidates=(first,), seconds=0, reason=f"no trials: {short} to gain from them")


def tune(
    plan_file: PlanFile,
    candidates: Sequence[Candidate],
    *,
    total_steps: int | None,
    budget: Budget,
    parent: str,
    device: DeviceProfile,
    worker_s: float | None = None,
    known: Mapping[Plan, Speed] | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_trial: OnTrial | None = None,
) -> Tuned:
    """Try the candidates (records of kind `trial`, whose parent is the run's id), best first, and take the fastest plan.

    `worker_s`: what the worker takes besides its steps, see `StackProfile`. `known`: speeds of plans that were tried for an
    earlier run; only the fastest of them is tried again, beside those that never were. `on_trial` is told whose turn it is and
    gives what is to see its events. Raises RunFailedError when every trial failed.
    """
    close = near(candidates)
    speeds = {candidate.plan: known[candidate.plan] for candidate in close if known and candidate.plan in known}
    unknown = [candidate for candidate in close if candidate.plan not in speeds]
    if speeds and not unknown:
        return _decided(close, speeds, (), where="in trials for an earlier run")
    again = sorted((c for c in close if c.plan in speeds), key=lambda candidate: -speeds[candidate.plan].median)[:1]
    trial_plan = schedule_trials([*again, *unknown], total_steps=total_steps, budget=budget, worker_s=worker_s)
    if len(trial_plan.candidates) < 2:
        if speeds:
            return _decided(close, speeds, (), where="in a trial for an earlier run")
        return Tuned(winner=candidates[0], trials=(), reason=trial_plan.reason)
    say(trial_plan.reason + (f"; {counted(len(speeds), 'plan')} known from earlier ones" if speeds else ""))
    found, stopped = race(
        plan_file, trial_plan.candidates, seconds=trial_plan.seconds, parent=parent, device=device, on_trial=on_trial
    )
    trials = tuple(record for record in found if record is not None)
    if stopped:
        return Tuned(winner=candidates[0], trials=trials, reason="stopped during a trial", stopped=True)
    measured = {record.plan: speed for record in trials if (speed := Speed.of(record)) is not None}
    if not measured:
        raise RunFailedError(
            f"every trial failed; the first: {trials[0].message}", hint=f"`txlplan records show {trials[0].id}` has the rest"
        )
    return _decided(close, measured, trials, where="in its trial")


def _decided(candidates: Sequence[Candidate], speeds: Mapping[Plan, Speed], trials: tuple[Record, ...], *, where: str) -> Tuned:
    """The fastest by median step; the planner's own choice where none is clearly faster."""
    first = candidates[0]
    of_first = speeds.get(first.plan)
    measured = [candidate for candidate in candidates if candidate.plan in speeds]
    better = [each for each in measured if of_first is None or speeds[each.plan].beats(of_first)]
    fastest = max(better or [first], key=lambda each: speeds[each.plan].median)
    reason = f"{describe(fastest.plan)}: {format_rate(speeds[fastest.plan].median, 'tokens')} {where}"
    if fastest is first:
        return Tuned(winner=first, trials=trials, reason=f"{reason}, the planner's choice")
    tried = any(record.plan == first.plan for record in trials)
    unmeasured = "which failed" if tried else "not tried again"
    told = unmeasured if of_first is None else f"at {format_rate(of_first.median, 'tokens')}"
    return Tuned(winner=fastest, trials=trials, reason=f"{reason}, against the planner's choice {describe(first.plan)} {told}")


def known_speeds(store: Store, plan_file: PlanFile, device: DeviceProfile) -> dict[Plan, Speed]:
    """Speeds of the plans that were tried before for this model, task, batch and optimizer on this device, stack and torch.

    Of several trials of a plan the newest counts.
    """
    workload, found = plan_file.workload, dict[Plan, Speed]()
    torch_version = environment().torch
    for record in store.list(kind="trial", outcome="ok", task=workload.task, model=workload.model.id, limit=MOST_REMEMBERED):
        own = record.workload
        alike = (
            own.model == workload.model
            and own.optimization.optimizer == workload.optimization.optimizer
            and record.device == device
            and record.stack == plan_file.stack
            and record.environment.torch == torch_version
        )
        speed = Speed.of(record) if alike else None
        if speed is not None:
            found.setdefault(record.plan, speed)
    return found


MOST_REMEMBERED = 500
"""Trials of a model that are looked at."""
