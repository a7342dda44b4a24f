"""Whether a run that is to be continued has anything left to do, and how much."""

from __future__ import annotations

from pathlib import Path

from txlplan.engine import events
from txlplan.launcher._execute import latest_run
from txlplan.launcher._progress import Progress
from txlplan.launcher._run_directory import absolute
from txlplan.plan_file import PlanFile
from txlplan.records import Record, open_store


def finished_run(plan_file: PlanFile, total_steps: int | None) -> tuple[Record, int] | None:
    """The record of a training run that made all its steps, with their number; None where something is left to do.

    `total_steps` is what the plan says now; where it does not say, what the worker counted holds. The checkpoint of the
    last step must still be there, and the run must have ended well: one that was killed later has yet to be evaluated.
    """
    if plan_file.workload.task != "train":
        return None
    directory = Path(absolute(plan_file).run.directory)
    history, _ = events.read(directory / events.FILE_NAME)
    saved = [event for event in history if isinstance(event, events.Saved) and Path(event.path).exists()]
    wanted = total_steps or next((event.total_steps for event in history if isinstance(event, events.Started)), None)
    if not saved or wanted is None or saved[-1].step < wanted:
        return None
    record = latest_run(open_store(), directory)
    return (record, saved[-1].step) if record is not None and record.outcome == "ok" else None


def steps_left(plan_file: PlanFile) -> int | None:
    """Of a training run, to the end that its plan sets; None where the plan sets none, or the task is another."""
    if plan_file.workload.task != "train":
        return None
    history, _ = events.read(Path(absolute(plan_file).run.directory) / events.FILE_NAME)
    progress = Progress(warmup_steps=0)
    for event in history:
        progress.add(event)
    return None if progress.total_steps is None else max(0, progress.total_steps - progress.step)
