"""A process that still works in a run directory, as the worker of a killed supervisor does until its step is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LATE = "checkpoints/late"
"""What it writes there last."""

_HOLDER = """
import fcntl, os, sys, time
from pathlib import Path
directory = Path(sys.argv[1])
descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(1)
(directory / sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
(directory / sys.argv[2]).touch()
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """Start it, with events of an earlier run beside it; it has the lock when this returns, and ends after a second."""
    directory.mkdir(parents=True)
    (directory / "events.jsonl").touch()
    command = [sys.executable, "-c", _HOLDER, str(directory), LATE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process
