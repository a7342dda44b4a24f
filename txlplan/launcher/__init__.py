"""Start and supervise runs: plans for this machine, runners, worker processes, live progress, records, tuning by trial."""

from txlplan.launcher._again import plan_again
from txlplan.launcher._candidate import Candidate, describe
from txlplan.launcher._execute import OnEvent, execute, latest_run, prepared
from txlplan.launcher._live import LiveView
from txlplan.launcher._machine import Machine, this_machine
from txlplan.launcher._progress import Progress
from txlplan.launcher._request import Planned, RunRequest, plan_request
from txlplan.launcher._run_directory import PLAN_NAME, absolute, clear, log_tail
from txlplan.launcher._runner import Launch, Runner, copy_runner, get_runner, launch, runner_paths
from txlplan.launcher._session import Session, run_planned, with_plan
from txlplan.launcher._trials import Budget, TrialPlan, Tuned, known_speeds, schedule_trials, tune

__all__ = [
    "PLAN_NAME",
    "Budget",
    "Candidate",
    "Launch",
    "LiveView",
    "Machine",
    "OnEvent",
    "Planned",
    "Progress",
    "RunRequest",
    "Runner",
    "Session",
    "TrialPlan",
    "Tuned",
    "absolute",
    "clear",
    "copy_runner",
    "describe",
    "execute",
    "get_runner",
    "known_speeds",
    "latest_run",
    "launch",
    "log_tail",
    "plan_again",
    "plan_request",
    "prepared",
    "run_planned",
    "runner_paths",
    "schedule_trials",
    "this_machine",
    "tune",
    "with_plan",
]
