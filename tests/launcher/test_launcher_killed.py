"""kill -9 of the supervisor and of the worker: no record and no checkpoint is lost, nothing is left running, the next call
goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from txlplan.engine import events
from txlplan.hardware import DeviceProfile
from txlplan.launcher import absolute, execute
from txlplan.plan_file import PlanFile, write_plan_file
from txlplan.records import open_store

SUPERVISOR = """
import sys
from pathlib import Path
from txlplan.config import from_plain, read_toml
from txlplan.hardware import DeviceProfile
from txlplan.launcher import execute
from txlplan.plan_file import read_plan_file
import json
device = from_plain(DeviceProfile, json.loads(sys.argv[2]), "argument")
execute(read_plan_file(Path(sys.argv[1])), estimate=None, device=device)
"""

ENDLESS = """
    start(total=1000)
    for n in range(1, 1000):
        step(n, loss=1000.0 - n); time.sleep(0.02)
        if stopped:
            time.sleep(0.3)
            tell(events.Saved(step=n, path="checkpoints/last"))
            finish("stopped")
"""


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)


def reported(directory: Path) -> list[events.Event]:
    return events.read(directory / events.FILE_NAME)[0]


def is_gone(process_id: int) -> bool:
    return not psutil.pid_exists(process_id) or psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_supervisor_killed(worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile, tmp_path: Path) -> None:
    import json

    from txlplan.config import to_plain

    directory = Path(scripted_plan.run.directory)
    worker(ENDLESS)
    write_plan_file(tmp_path / "plan.toml", absolute(scripted_plan))
    arguments = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "plan.toml"), json.dumps(to_plain(cpu))]
    supervisor = subprocess.Popen(arguments)
    wait_for(lambda: len(reported(directory)) > 3)
    (record,) = open_store().list()
    assert record.outcome == "running"
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()

    worker("start(step=10); step(11); finish('ok')")
    second = execute(scripted_plan, estimate=None, device=cpu, resume=True)
    history = reported(directory)
    starts = [event for event in history if isinstance(event, events.Started)]
    assert is_gone(starts[0].process_id)
    saved = next(event for event in history if isinstance(event, events.Saved))
    assert history.index(saved) < history.index(starts[1]), "the new worker waited for the old one to save"
    assert (second.outcome, second.parent) == ("ok", record.id)
    first = open_store().get(record.id)
    assert first.outcome == "stopped"
    assert "supervisor was killed" in first.message
    assert len(first.step_s) == saved.step
    assert first.peak_memory_bytes == 5000
    assert second.losses[0].loss == 999.0


def test_supervisor_and_worker_killed_at_once(
    worker: Callable[[str], None], scripted_plan: PlanFile, cpu: DeviceProfile
) -> None:
    worker("start(); step(1); step(2); os.kill(os.getppid(), signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)")
    child = os.fork()
    if child == 0:
        execute(scripted_plan, estimate=None, device=cpu)
        os._exit(1)
    os.waitpid(child, 0)
    worker("start(); step(1); finish('ok')")
    assert execute(scripted_plan, estimate=None, device=cpu, resume=True).outcome == "ok"
    first = open_store().list()[1]
    assert (first.outcome, first.message) == ("failed", "interrupted")
    assert len(first.step_s) == 2
