"""How a run ended, when the worker could not say so itself."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from txlplan.choices import Outcome
from txlplan.launcher._progress import Progress
from txlplan.launcher._run_directory import LOG_NAME

_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """What the record says of the end of a run."""

    outcome: Outcome
    message: str


def oom_kills() -> int | None:
    """Processes that the kernel has killed for memory since it started (`oom_kill` of /proc/vmstat); None: not told."""
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def ending(progress: Progress, *, status: int, asked_to_stop: bool, killed_for_memory: bool, log: str) -> Ending:
    """The outcome of a worker that ended with `status` (negative: the signal that ended it).

    What the worker said last counts most. A worker that was killed can say nothing: it ran out of memory if the kernel
    killed a process for memory meanwhile, else nobody here knows who killed it, and the message says that.
    """
    said = progress.finished
    if said is not None:
        return Ending(outcome=said.outcome, message=said.message or _shown(log, fallback="") * (said.outcome == "failed"))
    if asked_to_stop:
        return Ending(outcome="stopped", message=f"stopped at step {progress.step}, before the worker could end it")
    if killed_for_memory:
        message = f"out of memory: the kernel killed the worker (after step {progress.step})"
        return Ending(outcome="oom", message=message)
    if -status == signal.SIGKILL:
        message = (
            f"the worker was killed (SIGKILL) after step {progress.step}; nothing here did it: the kernel's "
            "out-of-memory killer, a container's limit or a person may have"
        )
        return Ending(outcome="failed", message=message)
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with exit code {status}"
    return Ending(outcome="failed", message=f"the worker ended {how} after step {progress.step}{_shown(log, fallback='')}")


def _shown(log: str, *, fallback: str) -> str:
    return f"; the end of {LOG_NAME}:\n{log}" if log else fallback
