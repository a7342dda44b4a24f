"""Run one plan: worker processes, their events, one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from txlplan import files
from txlplan.choices import RecordKind
from txlplan.engine import events
from txlplan.engine.support import require_supported
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.launcher._bookkeeping import closed, completed, opened, updated
from txlplan.launcher._outcome import Ending, ending, oom_kills
from txlplan.launcher._progress import Progress
from txlplan.launcher._run_directory import LOG_NAME, PLAN_NAME, absolute, locked, log_tail, require_free
from txlplan.launcher._runner import Launch, get_runner, launch
from txlplan.launcher._signals import Stops, forwarding
from txlplan.launcher._worker import Worker, started
from txlplan.plan_file import PlanFile, write_plan_file
from txlplan.records import LossPoint, Record, Store, new_id, open_store

POLL_S = 0.1
UPDATE_EVERY_S = 3.0
UPDATE_SHARE = 50
"""A running record is stored again only after this many times the time that storing it last took."""

OnEvent = Callable[[events.Event], None]


def execute(
    plan_file: PlanFile,
    *,
    estimate: Estimate | None,
    kind: RecordKind = "run",
    parent: str | None = None,
    resume: bool = False,
    steps: int | None = None,
    on_event: OnEvent | None = None,
    on_stop: Callable[[], None] | None = None,
    device: DeviceProfile | None = None,
    record_id: str | None = None,
) -> Record:
    """Run a plan on this machine and return its record, finished (`ok`, `oom`, `failed` or `stopped`).

    The `running` record is stored, with `estimate`, before the worker starts, and every few seconds after. SIGINT and
    SIGTERM stop the worker after its step, with a checkpoint; a second one kills it. `steps` ends the run early;
    `on_event` sees every event of the worker as it comes, `on_stop` is called once when the run was asked to stop; `device`
    is the one detected, `record_id` the record's, where they are known already (trials name the run that they are for).
    With `resume` the run goes on from the latest checkpoint of its directory, as a new record whose parent is the old one.

    Raises InputError for a plan that this version cannot execute, for a runner that does not serve it, for a directory
    that is in use, and (without `resume`) for one that holds a run, or something else, already.
    """
    plan_file = absolute(plan_file)
    command = prepared(plan_file, resume=resume, steps=steps)
    directory = Path(plan_file.run.directory)
    if not resume:
        require_free(directory)
    with locked(directory) as lock:
        if not resume:
            require_free(directory)
        store = open_store()
        store.close_interrupted()
        earlier = _earlier_run(store, plan_file) if resume else None
        record = opened(
            record_id or new_id(),
            plan_file,
            kind=kind,
            parent=parent or (earlier.id if earlier else None),
            estimate=earlier.estimate if earlier and earlier.estimate else estimate,
            device=device or _this_device(),
        )
        write_plan_file(directory / PLAN_NAME, plan_file)
        store.put(record)
        supervision = _Supervision(
            plan_file=plan_file,
            store=store,
            record=record,
            before=earlier.losses if earlier else (),
            on_event=on_event,
            on_stop=on_stop,
        )
        return supervision.run(command, lock)


def prepared(plan_file: PlanFile, *, resume: bool = False, steps: int | None = None) -> Launch:
    """The worker's command line, after checking that this version can execute the plan. Starts nothing."""
    require_supported(plan_file)
    arguments = (["--steps", str(steps)] if steps is not None else []) + (["--resume"] if resume else [])
    path = Path(plan_file.run.directory) / PLAN_NAME
    return launch(get_runner(plan_file.run.runner), plan_file, plan_path=path, arguments=arguments)


def latest_run(store: Store, directory: Path) -> Record | None:
    """The newest run that used this directory."""
    return next((record for record in store.list(kind="run") if record.run_directory == str(directory)), None)


def _earlier_run(store: Store, plan_file: PlanFile) -> Record | None:
    """The run that is continued; where its supervisor was killed, its record is completed first."""
    directory = Path(plan_file.run.directory)
    earlier = latest_run(store, directory)
    if earlier is not None and (earlier.outcome, earlier.message) == ("failed", "interrupted"):
        history, _ = events.read(directory / events.FILE_NAME)
        earlier = completed(earlier, history, warmup_steps=plan_file.run.warmup_steps)
        store.put(earlier)
    return earlier


def _this_device() -> DeviceProfile:
    from txlplan.detection import this_machine

    return this_machine()[1]


@dataclass(kw_only=True, slots=True)
class _Supervision:
    """One worker under watch: its events become progress, its progress the record."""

    plan_file: PlanFile
    store: Store
    record: Record
    before: tuple[LossPoint, ...]
    on_event: OnEvent | None
    on_stop: Callable[[], None] | None = None
    stops: Stops = field(default_factory=Stops)
    put_next_s: float = 0.0
    offset: int = 0
    progress: Progress = field(init=False)

    def run(self, command: Launch, lock: int) -> Record:
        """Start the worker and stay until it has ended; the record is closed whatever happens."""
        directory = Path(self.plan_file.run.directory)
        self.progress = Progress(warmup_steps=self.plan_file.run.warmup_steps)
        self.offset = files.whole_lines_bytes(directory / events.FILE_NAME)
        log_start, kills = _size(directory / LOG_NAME), oom_kills()
        try:
            with started(command, log=directory / LOG_NAME, keep_open=lock) as worker, forwarding(worker, self.stops):
                status = self._follow(worker)
            end = ending(
                self.progress,
                status=status,
                asked_to_stop=self.stops.count > 0,
                killed_for_memory=kills is not None and (oom_kills() or 0) > kills,
                log=log_tail(directory, log_start),
            )
        except KeyboardInterrupt:
            self._close(Ending(outcome="stopped", message="interrupted before the first step"))
            raise
        except BaseException as error:
            self._close(Ending(outcome="failed", message=f"the supervisor failed: {type(error).__name__}: {error}"))
            raise
        return self._close(end)

    def _close(self, end: Ending) -> Record:
        self.record = closed(self.record, self.progress, end, before=self.before)
        self.store.put(self.record)
        return self.record

    def _follow(self, worker: Worker) -> int:
        while True:
            status = worker.wait(POLL_S)
            self._take_events()
            if self.stops.count and self.on_stop is not None:
                self.on_stop()
                self.on_stop = None
            if status is not None:
                return status
            if time.monotonic() >= self.put_next_s:
                self._put()

    def _take_events(self) -> None:
        new, self.offset = events.read(Path(self.plan_file.run.directory) / events.FILE_NAME, self.offset)
        for event in new:
            self.progress.add(event, split=self.plan_file.data.split)
            if self.on_event is not None:
                self.on_event(event)

    def _put(self) -> None:
        start_s = time.monotonic()
        self.record = updated(self.record, self.progress, before=self.before)
        self.store.put(self.record)
        end_s = time.monotonic()
        self.put_next_s = end_s + max(UPDATE_EVERY_S, UPDATE_SHARE * (end_s - start_s))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
