"""Run a plan file that is there already: one that somebody wrote or kept, or that of a run to be continued."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from txlplan.cost import estimate
from txlplan.engine.support import require_supported
from txlplan.errors import InputError
from txlplan.launcher._candidate import Candidate
from txlplan.launcher._machine import this_machine
from txlplan.launcher._prompts import check_prompts
from txlplan.launcher._request import Planned, total_steps
from txlplan.launcher._run_directory import PLAN_NAME, absolute
from txlplan.plan_file import read_plan_file


def plan_again(path: Path, *, directory: Path | None = None, runner: str | None = None) -> Planned:
    """The plan of a plan file, or of a run directory, as it is, with its estimate on this machine.

    `directory` and `runner` replace those of the file. Raises InputError when there is no such file, when this version
    cannot execute it, when there is no GPU for it, or for prompts that its model cannot read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or run directory", hint="`txlplan records list` knows the runs of this machine")
    plan_file = absolute(read_plan_file(path / PLAN_NAME if path.is_dir() else path))
    require_supported(plan_file)
    if plan_file.workload.task == "generate":
        check_prompts(plan_file)
    machine = this_machine(plan_file.plan.n_devices)
    if plan_file.run.device != machine.backend:
        raise InputError(
            f"{path}: run.device = {plan_file.run.device!r}, but {machine.device.name} computes on {machine.backend}",
            hint="plan for this machine: `txlplan run --model … --data …`",
        )
    own = plan_file.run
    run = dataclasses.replace(own, directory=str(directory or own.directory), runner=runner or own.runner)
    plan_file = dataclasses.replace(plan_file, system=machine.cluster.system.id, stack=machine.stack.id, run=run)
    predicted = estimate(plan_file.workload, machine.cluster, machine.stack, (plan_file.plan,))[0]
    return Planned(
        plan_file=plan_file,
        candidates=(Candidate(plan=plan_file.plan, estimate=predicted),),
        machine=machine,
        n_costed=1,
        total_steps=total_steps(plan_file.workload, plan_file.plan),
    )
