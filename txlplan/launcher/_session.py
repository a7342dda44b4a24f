"""A whole run as a person starts it: trials where they pay, then the run, with a live view of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from txlplan.data import read_manifest
from txlplan.engine.events import Event, Streamed
from txlplan.estimates import Estimate
from txlplan.launcher._candidate import Candidate, describe
from txlplan.launcher._complete import finished_run, steps_left
from txlplan.launcher._execute import OnEvent, execute, prepared
from txlplan.launcher._live import LiveView
from txlplan.launcher._request import Planned
from txlplan.launcher._run_directory import require_free
from txlplan.launcher._trials import Budget, Tuned, known_speeds, tune
from txlplan.plan_file import PlanFile
from txlplan.records import Record, new_id, open_store


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What became of a plan: the run's record, and the trials before it."""

    record: Record | None
    """None where a person stopped it during a trial."""
    tuned: Tuned | None
    """None where no trial was wanted."""
    steps_left: int | None = None
    """Of a training run that can go on, to the end that its plan sets; None: it sets none, or the run is another or failed."""


def run_planned(
    planned: Planned,
    *,
    trials: bool = True,
    resume: bool = False,
    steps: int | None = None,
    budget: Budget | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_text: Callable[[str], None] | None = None,
) -> Session:
    """Try the best few plans within `budget`, then run the winner (or the plan itself). Progress to stderr, notes to `say`.

    With `on_text` the pieces of a text that is generated go there while they come, and no progress is shown beside them.

    The run's record holds the estimate that was made before any trial. Raises what `execute` and `tune` raise.
    """
    plan_file, record_id = planned.plan_file, new_id()
    prepared(plan_file, resume=resume, steps=steps)
    if not resume:
        require_free(Path(plan_file.run.directory).expanduser())
    if resume and (complete := finished_run(plan_file, planned.total_steps)):
        record, step = complete
        say(f"already complete: {step:,} of {step:,} steps")
        return Session(record=record, tuned=None)
    tuned = None
    chosen = planned.candidates[0]
    if trials and not resume:
        tuned = _tuned(planned, record_id, steps, budget or Budget(), say)
        say(f"plan: {tuned.reason}")
        if tuned.stopped:
            return Session(record=None, tuned=tuned)
        chosen = tuned.winner
    say(f"run: {describe(chosen.plan)}")
    plan_file = with_plan(plan_file, chosen)
    view = _view(plan_file, chosen.estimate, "", steps)
    with nullcontext() if on_text else view:
        record = execute(
            plan_file,
            estimate=chosen.estimate,
            resume=resume,
            steps=steps,
            on_event=_streaming(on_text) if on_text else view.on_event,
            on_stop=view.on_stop,
            device=planned.machine.device,
            record_id=record_id,
        )
    goes_on = record.outcome in ("ok", "stopped")
    return Session(record=record, tuned=tuned, steps_left=steps_left(plan_file) if goes_on else None)


def _streaming(on_text: Callable[[str], None]) -> OnEvent:
    def on_event(event: Event) -> None:
        if isinstance(event, Streamed):
            on_text(event.text)

    return on_event


def with_plan(plan_file: PlanFile, candidate: Candidate) -> PlanFile:
    """The plan file with another plan, and a runner that serves it."""
    several = candidate.plan.n_devices > 1
    runner = "torchrun" if several and plan_file.run.runner == "local" else plan_file.run.runner
    return dataclasses.replace(plan_file, plan=candidate.plan, run=dataclasses.replace(plan_file.run, runner=runner))


def _tuned(planned: Planned, record_id: str, steps: int | None, budget: Budget, say: Callable[[str], None]) -> Tuned:
    total = planned.total_steps if steps is None else min(steps, planned.total_steps or steps)
    device, named = planned.machine.device, set[int]()

    def on_trial(number: int, candidate: Candidate) -> OnEvent | None:
        """A plan is named and its steps are shown at its first turn; later ones are a line each."""
        if number in named:
            say(f"trial {number} again")
            return None
        named.add(number)
        say(f"trial {number}: {describe(candidate.plan)}")
        return _view(planned.plan_file, candidate.estimate, f"trial {number}", None).on_event

    return tune(
        planned.plan_file,
        planned.candidates,
        total_steps=total,
        budget=budget,
        parent=record_id,
        device=device,
        worker_s=planned.machine.stack.worker_s,
        known=known_speeds(open_store(), planned.plan_file, device),
        say=say,
        on_trial=on_trial,
    )


def _view(plan_file: PlanFile, estimate: Estimate, label: str, steps: int | None) -> LiveView:
    """A view whose loss is in bits where tokens are bytes or characters, as the model's users count."""
    kind = read_manifest(Path(plan_file.data.directory)).vocabulary.kind
    return LiveView(
        warmup_steps=plan_file.run.warmup_steps,
        estimate=estimate,
        label=label,
        steps=steps,
        bits=kind in ("bytes", "characters"),
    )
