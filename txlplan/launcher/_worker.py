"""The worker as a process: started in a group of its own, told to stop, and never left behind.

Linux tells the worker (`PR_SET_PDEATHSIG`) when its supervisor is gone, however it went: it then stops as it does on
SIGTERM, with a checkpoint. On other systems only an orderly end of the supervisor stops the worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from txlplan.errors import RunFailedError
from txlplan.launcher._runner import Launch

PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>; see prctl(2)."""
KILL_AFTER_S = 60.0
"""How long a worker may take to stop when its supervisor fails, before it is killed."""
FIRST_NOTE_S, LAST_NOTE_S = 0.25, 8.0
"""How often the processes below the worker are looked up: twice as long each time, since this reads all of /proc on the cores
that the worker uses, and workers are started early."""


class Worker:
    """A started worker: its own process and, under torchrun, those below it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._below: dict[int, psutil.Process] = {}
        self._note_every_s = FIRST_NOTE_S
        self._note_next_s = 0.0

    @property
    def process_id(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        """The exit status (negative: the signal that ended it), or None if it still runs after `timeout_s`."""
        if time.monotonic() >= self._note_next_s:
            self._note_children()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ask it to stop after the step it is in, with a checkpoint."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, and whatever it started."""
        self._note_children()
        self._signal(signal.SIGKILL)
        self.end_orphans()

    def end_orphans(self) -> None:
        """Kill what outlived it (the workers of a torchrun that was killed itself)."""
        for child in self._below.values():
            with contextlib.suppress(psutil.Error):
                child.kill()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _note_children(self) -> None:
        self._note_next_s = time.monotonic() + self._note_every_s
        self._note_every_s = min(2 * self._note_every_s, LAST_NOTE_S)
        with contextlib.suppress(psutil.Error):
            self._below |= {child.pid: child for child in psutil.Process(self._process.pid).children(recursive=True)}


@contextlib.contextmanager
def started(launch: Launch, *, log: Path, keep_open: int) -> Iterator[Worker]:
    """Start the command with its output appended to `log`; when the block ends, however, no process of it is left.

    `keep_open` is a file descriptor that the worker inherits: the lock of the run directory, which so outlives a
    killed supervisor until the worker is gone too.
    """
    with log.open("ab") as stream:
        try:
            process = subprocess.Popen(
                launch.command,
                env={**os.environ, **launch.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                process_group=0,
                pass_fds=(keep_open,),
                preexec_fn=_follow_parent(),
            )
        except OSError as error:
            raise RunFailedError(f"{launch.command[0]} could not be started: {error.strerror}") from None
    worker = Worker(process)
    try:
        yield worker
    except BaseException:
        worker.stop()
        if worker.wait(KILL_AFTER_S) is None:
            worker.kill()
        raise
    finally:
        worker.kill()
        process.wait()


def _follow_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the worker: ask for SIGTERM when its parent dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def follow() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return follow
