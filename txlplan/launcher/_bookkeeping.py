"""The record of a run, from before its worker starts until after it ended."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from txlplan.choices import RecordKind
from txlplan.engine.events import Event, Started
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.launcher._outcome import Ending
from txlplan.launcher._progress import Progress
from txlplan.plan_file import PlanFile
from txlplan.records import LossPoint, Record, environment, now


def opened(
    record_id: str,
    plan_file: PlanFile,
    *,
    kind: RecordKind,
    parent: str | None,
    estimate: Estimate | None,
    device: DeviceProfile,
) -> Record:
    """The `running` record that is stored before the worker starts."""
    return Record(
        id=record_id,
        kind=kind,
        parent=parent,
        created_at=now(),
        workload=plan_file.workload,
        plan=plan_file.plan,
        system=plan_file.system,
        stack=plan_file.stack,
        device=device,
        n_devices=plan_file.plan.n_devices,
        environment=environment(),
        process_id=os.getpid(),
        run_directory=plan_file.run.directory,
        weights_from=plan_file.run.checkpoint,
        estimate=estimate,
    )


def updated(record: Record, progress: Progress, *, before: tuple[LossPoint, ...] = ()) -> Record:
    """The record with what the worker has reported so far.

    `before`: the loss curve of the run that this one continues, of which the part up to where it took over is kept.
    """
    last = progress.evaluations[-1] if progress.evaluations else None
    kept = tuple(point for point in before if point.step <= progress.first_step)
    return dataclasses.replace(
        record,
        step_s=tuple(progress.step_s),
        warmup_steps=min(progress.warmup_steps, len(progress.step_s)),
        tokens_per_step=max(progress.tokens, default=None),
        tokens_per_s=progress.tokens_per_s,
        losses=kept + progress.losses(),
        perplexity=last.perplexity if last else None,
        bits_per_character=last.bits_per_character if last else None,
        text=progress.text,
    )


def closed(record: Record, progress: Progress, end: Ending, *, before: tuple[LossPoint, ...] = ()) -> Record:
    """The finished record: one without a result has no peak, for what a worker holds before its first step is none of it."""
    ended = dataclasses.replace(
        updated(record, progress, before=before), outcome=end.outcome, message=end.message, finished_at=now()
    )
    said = progress.finished
    peaks = said if ended.has_result else None
    return dataclasses.replace(
        ended,
        peak_memory_bytes=peaks.peak_memory_bytes if peaks else None,
        allocator_peak_bytes=peaks.allocator_peak_bytes if peaks else None,
        energy_j=said.energy_j if said else None,
    )


def completed(record: Record, history: Sequence[Event], *, warmup_steps: int) -> Record:
    """The record of a run whose supervisor was killed, with all that its worker reported until it stopped too.

    `history` is the whole of the directory's events; the last worker that started there was this run's.
    """
    starts = [index for index, event in enumerate(history) if isinstance(event, Started)]
    if not starts:
        return record
    progress = Progress(warmup_steps=warmup_steps)
    for event in history[starts[-1] :]:
        progress.add(event)
    said = progress.finished
    if said is None:
        return updated(record, progress, before=record.losses)
    message = f"the supervisor was killed; the worker ended by itself at step {progress.step}: {said.outcome} {said.message}"
    return closed(record, progress, Ending(outcome=said.outcome, message=message.rstrip()), before=record.losses)
