"""Start and supervise runs: runners, worker processes, live progress, records, tuning by trial."""

from txlplan.launcher._execute import execute, latest_run, prepared
from txlplan.launcher._live import LiveView
from txlplan.launcher._progress import Progress
from txlplan.launcher._run_directory import PLAN_NAME, absolute, holds_a_run
from txlplan.launcher._runner import Launch, Runner, copy_runner, get_runner, launch, runner_paths

__all__ = [
    "PLAN_NAME",
    "Launch",
    "LiveView",
    "Progress",
    "Runner",
    "absolute",
    "copy_runner",
    "execute",
    "get_runner",
    "holds_a_run",
    "latest_run",
    "launch",
    "prepared",
    "runner_paths",
]
