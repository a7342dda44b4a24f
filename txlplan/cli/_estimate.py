"""`txlplan estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from txlplan.choices import Checkpointing
from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import (
    DevicesOption,
    NodesOption,
    StackOption,
    candidate,
    one_of,
    print_estimate,
    print_terms,
)
from txlplan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.estimates import Estimate
    from txlplan.plan_file import Plan
    from txlplan.planner import Candidate
    from txlplan.workload import Workload


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("estimate")(_estimate)


def _estimate(
    plan_file: Annotated[Path | None, typer.Argument(metavar="[PLAN.toml]", help="Estimate this plan file.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Id of a model, or a .toml file.")] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="SYSTEM", help="Id of a system, a .toml file, or `local`.")
    ] = None,
    devices: DevicesOption = None,
    nodes: NodesOption = 1,
    stack: StackOption = None,
    task: Annotated[str, typer.Option("--task", help="train, score or generate.")] = "train",
    micro_batch: Annotated[int | None, typer.Option("--micro-batch", help="Sequences per device per micro-batch.")] = None,
    accumulation: Annotated[int, typer.Option("--accumulation", help="Micro-batches per optimizer step.")] = 1,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, tf32, fp16 or bf16.")] = None,
    checkpointing: Annotated[
        str, typer.Option("--activation-checkpointing", help="none, attention, feed-forward or full.")
    ] = "none",
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads a process.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print every term: formula, share, provenance, bound.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Estimate time, memory and energy of one plan, before anything runs.

    Example: txlplan estimate --model nvidia-wt103-base --system dgx-1 --micro-batch 32 --precision fp16 --explain
    """
    from txlplan.cost import estimate
    from txlplan.plan_file import read_plan_file

    if plan_file is not None:
        given = read_plan_file(plan_file)
        workload, plan = given.workload, given.plan
        target = candidate(system or given.system, n_nodes=nodes, n_devices=devices, stack=stack or given.stack)
        if nodes == 1 and target.cluster.device.kind != "cpu" and plan.n_devices > target.cluster.n_devices:
            needed = -(-plan.n_devices // target.cluster.n_devices)
            target = candidate(system or given.system, n_nodes=needed, n_devices=devices, stack=stack or given.stack)
    else:
        target = candidate(system or "local", n_nodes=nodes, n_devices=devices, stack=stack)
        workload = _workload(model, one_of(task, ("train", "score", "generate"), "--task"))
        plan = _plan(workload, target, micro_batch, accumulation, precision, checkpointing, threads)
    found = estimate(workload, target.cluster, target.stack, [plan])[0]
    output = Output(as_json)
    output.document(
        _document(workload, target, plan, found), lambda console: _print(console, workload, target, plan, found, explain)
    )
    name = f"--model {workload.model.id} --system {system or 'local'} --tokens 1e8"
    output.next_step(f"txlplan run {plan_file}" if plan_file else f"txlplan plan {name}")


def _workload(model: str | None, task: Any) -> Workload:
    from txlplan.model import models
    from txlplan.workload import Workload

    if model is None:
        raise InputError("no model is named", hint="give --model (`txlplan model list` shows them) or a plan.toml")
    return Workload(model=models.get(model), task=task)


def _plan(
    workload: Workload,
    target: Candidate,
    micro_batch: int | None,
    accumulation: int,
    precision: str | None,
    checkpointing: str,
    threads: int | None,
) -> Plan:
    """The plan of the options; where no micro-batch is given, the published batch over the devices."""
    from txlplan.plan_file import Plan
    from txlplan.planner import global_batch

    cluster = target.cluster
    if micro_batch is None:
        micro_batch = max(1, (global_batch(workload) or cluster.n_devices) // (cluster.n_devices * max(accumulation, 1)))
    if micro_batch < 1 or accumulation < 1 or (threads is not None and threads < 1):
        raise InputError("--micro-batch, --accumulation and --threads must be at least 1")
    known = tuple(cluster.device.peak_flops_per_s)
    chosen = one_of(precision, ("fp32", "tf32", "fp16", "bf16"), "--precision") if precision else known[0]
    return Plan(
        micro_batch=micro_batch,
        accumulation=accumulation,
        precision="fp32" if precision is None and "fp32" in known else chosen,
        data_parallel=cluster.n_devices,
        activation_checkpointing=one_of(checkpointing, get_args(Checkpointing), "--activation-checkpointing"),
        threads=threads,
    )


def _document(workload: Workload, target: Candidate, plan: Plan, found: Estimate) -> dict[str, Any]:
    from txlplan.config import to_plain

    return {
        "model": workload.model.id,
        "task": workload.task,
        "system": target.cluster.system.id,
        "n_nodes": target.cluster.n_nodes,
        "plan": to_plain(plan),
        "estimate": to_plain(found),
    }


def _print(console: Console, workload: Workload, target: Candidate, plan: Plan, found: Estimate, explain: bool) -> None:
    from txlplan.planner import describe

    title = f"{workload.model.id}, {workload.task}, on {target.label}: {describe(plan)}"
    console.print(title, markup=False, highlight=False)
    print_estimate(console, found)
    if explain:
        print_terms(console, found)
