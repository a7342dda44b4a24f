"""The worker that tries several plans, under watch: one record a plan."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from txlplan import files
from txlplan.config import to_plain
from txlplan.engine import events
from txlplan.engine.events import Event, Tried, Trying
from txlplan.hardware import DeviceProfile
from txlplan.launcher._bookkeeping import closed, opened
from txlplan.launcher._candidate import Candidate
from txlplan.launcher._execute import POLL_S, OnEvent
from txlplan.launcher._outcome import Ending, ending, oom_kills
from txlplan.launcher._progress import Progress
from txlplan.launcher._run_directory import (
    CHECKPOINTS_NAME,
    LOG_NAME,
    PLAN_NAME,
    TRIALS_NAME,
    absolute,
    clear,
    locked,
    log_tail,
)
from txlplan.launcher._runner import get_runner, launch
from txlplan.launcher._signals import Stops, forwarding
from txlplan.launcher._worker import started
from txlplan.plan_file import PlanFile, write_plan_file
from txlplan.records import Record, new_id, open_store

PLANS_NAME = "plans.json"
WARMUP_STEPS = 1
"""Of a trial's first turn, kept in its record and left out of its speed; later turns leave theirs out of the record."""

END_S = 2.0
"""Kept for the end of the worker, and for a step that takes longer than the one before."""

OnTrial = Callable[[int, Candidate], OnEvent | None]


def race(
    plan_file: PlanFile,
    candidates: Sequence[Candidate],
    *,
    seconds: float,
    parent: str,
    device: DeviceProfile,
    on_trial: OnTrial | None = None,
) -> tuple[tuple[Record | None, ...], bool]:
    """Try the candidates in one worker for about `seconds`, its start and end included.

    Each one's record (None: its turn never came), and whether a person stopped it.

    `on_trial` is told whose turn it is, and gives what is to see the turn's events.
    """
    trial = _trial_plan_file(plan_file, candidates[0])
    directory = Path(trial.run.directory)
    clear(directory)
    write_plan_file(directory / PLAN_NAME, trial)
    files.write_text(directory / PLANS_NAME, json.dumps([to_plain(candidate.plan) for candidate in candidates]) + "\n")
    arguments = ["--trials", str(directory / PLANS_NAME), "--seconds", f"{max(0.0, seconds - END_S):.1f}"]
    command = launch(get_runner(trial.run.runner), trial, plan_path=directory / PLAN_NAME, arguments=arguments)
    watch = _Watch(plan_file=trial, candidates=candidates, parent=parent, device=device, on_trial=on_trial)
    kills, stops = oom_kills(), Stops()
    with locked(directory) as lock, started(command, log=directory / LOG_NAME, keep_open=lock) as worker:
        with forwarding(worker, stops):
            while (status := worker.wait(POLL_S)) is None:
                watch.take_events()
        watch.take_events()
    killed_for_memory = kills is not None and (oom_kills() or 0) > kills
    watch.end(status, stopped=stops.count > 0, killed_for_memory=killed_for_memory, log=log_tail(directory))
    shutil.rmtree(directory / CHECKPOINTS_NAME, ignore_errors=True)
    return tuple(watch.records), stops.count > 0 or watch.was_stopped


def _trial_plan_file(plan_file: PlanFile, first: Candidate) -> PlanFile:
    whole = absolute(plan_file)
    return dataclasses.replace(
        whole,
        plan=first.plan,
        data=dataclasses.replace(whole.data, evaluation_split=None),
        run=dataclasses.replace(whole.run, directory=str(Path(whole.run.directory) / TRIALS_NAME), warmup_steps=WARMUP_STEPS),
    )


@dataclass(kw_only=True, slots=True)
class _Watch:
    """The worker's events, dealt out to the plans."""

    plan_file: PlanFile
    candidates: Sequence[Candidate]
    parent: str
    device: DeviceProfile
    on_trial: OnTrial | None
    records: list[Record | None] = field(init=False)
    progress: list[Progress] = field(init=False)
    last: Progress = field(default_factory=lambda: Progress(warmup_steps=WARMUP_STEPS))
    """What concerns all plans: how the worker ended."""
    turn: int | None = None
    offset: int = 0
    seen: OnEvent | None = None

    def __post_init__(self) -> None:
        self.records = [None] * len(self.candidates)
        self.progress = [Progress(warmup_steps=WARMUP_STEPS) for _ in self.candidates]

    def take_events(self) -> None:
        """Read what is new."""
        new, self.offset = events.read(Path(self.plan_file.run.directory) / events.FILE_NAME, self.offset)
        for event in new:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Trying):
            self._begin(event.candidate)
        elif isinstance(event, Tried):
            self._close(event.candidate, Ending(outcome=event.outcome, message=event.message))
        elif isinstance(event, events.Step) and self.turn is not None:
            self.progress[self.turn].add(event)
            if self.seen is not None:
                self.seen(event)
        else:
            self.last.add(event)

    def _begin(self, number: int) -> None:
        candidate = self.candidates[number]
        self.turn = number
        self.seen = self.on_trial(number + 1, candidate) if self.on_trial else None
        if self.records[number] is not None:
            return
        plan_file = dataclasses.replace(self.plan_file, plan=candidate.plan)
        record = opened(new_id(), plan_file, kind="trial", parent=self.parent, estimate=candidate.estimate, device=self.device)
        self.records[number] = record
        open_store().put(record)

    def _close(self, number: int, end: Ending) -> None:
        record = self.records[number]
        assert record is not None
        finished = closed(record, self.progress[number], end)
        self.records[number] = finished
        open_store().put(finished)

    @property
    def was_stopped(self) -> bool:
        """Whether the worker says so, whoever asked it to."""
        return self.last.finished is not None and self.last.finished.outcome == "stopped"

    def end(self, status: int, *, stopped: bool, killed_for_memory: bool, log: str) -> None:
        """Close what the worker did not: the plan whose turn it was as the worker's end says, earlier ones by their steps."""
        end = ending(self.last, status=status, asked_to_stop=stopped, killed_for_memory=killed_for_memory, log=log)
        for number, record in enumerate(self.records):
            if record is None or record.outcome != "running":
                continue
            measured = len(self.progress[number].step_s) > WARMUP_STEPS
            ended_well = number != self.turn or end.outcome == "ok"
            self._close(number, Ending(outcome="ok", message="") if measured and ended_well else end)
