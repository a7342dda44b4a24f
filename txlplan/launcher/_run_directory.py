"""A run directory: plan, log, events and checkpoints of one run, used by one supervisor at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from txlplan.engine import events
from txlplan.errors import InputError
from txlplan.plan_file import PlanFile

PLAN_NAME = "plan.toml"
LOG_NAME = "worker.log"
LOCK_NAME = ".lock"
CHECKPOINTS_NAME = "checkpoints"
TRIALS_NAME = "trials"
_OWN_NAMES = frozenset({PLAN_NAME, LOG_NAME, LOCK_NAME, CHECKPOINTS_NAME, TRIALS_NAME, events.FILE_NAME})
WAIT_S = 60.0
"""How long to wait for the worker of a killed supervisor to stop."""


def absolute(plan_file: PlanFile) -> PlanFile:
    """The same plan with absolute paths, so that it means the same from any directory."""
    run, data = plan_file.run, plan_file.data
    checkpoint = None if run.checkpoint is None else str(Path(run.checkpoint).expanduser().absolute())
    directory = str(Path(run.directory).expanduser().absolute())
    return dataclasses.replace(
        plan_file,
        run=dataclasses.replace(run, directory=directory, checkpoint=checkpoint),
        data=dataclasses.replace(data, directory=str(Path(data.directory).expanduser().absolute())),
    )


def holds_a_run(directory: Path) -> bool:
    """Whether a worker has written events there."""
    return (directory / events.FILE_NAME).exists()


def require_free(directory: Path) -> None:
    """Raise InputError where a new run would mix with what is there: another run, or files that are no run's."""
    if holds_a_run(directory):
        raise InputError(f"{directory} holds a run already", hint="continue it with --resume, or give another --directory")
    if not directory.is_dir() or (directory / PLAN_NAME).exists():
        return
    foreign = next((entry.name for entry in sorted(directory.iterdir()) if entry.name not in _OWN_NAMES), None)
    if foreign is not None:
        raise InputError(
            f"{directory} is no run directory: it holds {foreign!r}",
            hint="give a --directory that is empty, or does not exist yet",
        )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Hold the run directory (created if need be); gives the lock's file descriptor.

    The lock is the open file's (flock), so it ends with the last process that has it, killed or not. Waits for a worker
    that is still stopping; raises InputError when another run goes on there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(
            f"run directory {directory} cannot be used: {error.strerror}", hint="--directory names another"
        ) from None
    try:
        _acquire(descriptor, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def clear(directory: Path) -> None:
    """Remove what an earlier run left there, once its worker is gone.

    All but the lock file: whoever locks another file of that name locks nobody out. Raises what `locked` raises.
    """
    with locked(directory):
        for entry in directory.iterdir():
            if entry.name == LOCK_NAME:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _acquire(descriptor: int, directory: Path) -> None:
    """Take the lock; a live supervisor is named in the file, one that is gone leaves only its worker to wait for."""
    give_up = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip()
            if _lives(holder) or time.monotonic() > give_up:
                raise InputError(
                    f"{directory} is in use by another run (process {holder or 'unknown'})",
                    hint="wait for it, stop it, or give another --directory",
                ) from None
            time.sleep(0.1)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return


def _lives(holder: str) -> bool:
    """Whether the process of this id still runs; one that is dead but not yet reaped does not."""
    try:
        return psutil.Process(int(holder)).status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return False
    except psutil.Error:
        return True


def log_tail(directory: Path, offset: int = 0, *, lines: int = 12) -> str:
    """The last lines that the worker wrote to its log after byte `offset`; empty if none."""
    path = directory / LOG_NAME
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(offset, path.stat().st_size - 16_384))
        text = stream.read().decode("utf-8", errors="replace")
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-lines:])
