"""Ctrl-C before anything has started: a sentence and the exit code of a program that SIGINT ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil


def test_interrupted_command_says_so(tmp_path: Path) -> None:
    """`data prepare -` waits for standard input, which never comes."""
    command = [sys.executable, "-c", "from txlplan.__main__ import main; main()", "data", "prepare", "-", "--output", "out"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,
    ) as process:
        _wait_for_reading(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stdin is not None
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: txlplan data was interrupted before it was done" in said
    assert "hint: the same command starts again (a run whose directory is there: with --resume)" in said
    assert "Traceback" not in said


def test_interrupted_while_it_is_imported(tmp_path: Path) -> None:
    """The first import of the command line sends the signal."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from txlplan.__main__ import main; main()"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_heed_interrupts,
    )
    assert done.returncode == 130
    assert "error: txlplan was interrupted" in done.stderr
    assert "Traceback" not in done.stderr


def _heed_interrupts() -> None:
    """Tests that a shell started in its background ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for_reading(pid: int) -> None:
    """Until it has slept for half a second: it is past its imports, and reads."""
    give_up, asleep = time.monotonic() + 60, 0
    while asleep < 10 and time.monotonic() < give_up:
        time.sleep(0.05)
        asleep = asleep + 1 if psutil.Process(pid).status() == psutil.STATUS_SLEEPING else 0
    assert asleep == 10
