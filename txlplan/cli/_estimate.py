"""`txlplan estimate`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.choices import AttentionPath, Checkpointing, Precision, Task
from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import (
    LOCAL,
    DevicesOption,
    NodesOption,
    StackOption,
    candidate,
    print_estimate,
    print_terms,
    shared_by,
)
from txlplan.cli._trace import Quantity, as_document, compare, print_trace
from txlplan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.estimates import Estimate
    from txlplan.plan_file import Plan
    from txlplan.planner import Candidate, Fix
    from txlplan.workload import Workload

_OF_PLAN = (
    "micro_batch", "accumulation", "precision", "activation_checkpointing", "checkpointed_layers", "threads", "attention"
)  # fmt: skip
"""Options that are fields of the plan."""
_PlanFile = Annotated[Path | None, typer.Argument(metavar="[PLAN.toml]", help="Estimate this plan file.")]
_Model = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Id of a model, or a .toml file.")]
_System = Annotated[str | None, typer.Option("--system", metavar="SYSTEM", help="Id of a system, a .toml file, or `local`.")]
_TaskOption = Annotated[Task | None, typer.Option("--task", help="By default train.")]
_MicroBatch = Annotated[int | None, typer.Option("--micro-batch", help="Sequences per device per micro-batch.")]
_Accumulation = Annotated[int | None, typer.Option("--accumulation", help="Micro-batches per optimizer step.")]
_PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="Arithmetic; by default fp32 where there is such.")
]
_CheckpointingOption = Annotated[
    Checkpointing | None, typer.Option("--activation-checkpointing", help="What runs again in backward; by default nothing.")
]
_CheckpointedLayers = Annotated[
    int | None, typer.Option("--checkpointed-layers", help="Of so many layers of each stage; by default all.")
]
_Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads a process.")]
_Attention = Annotated[
    AttentionPath | None, typer.Option("--attention", help="How attention is computed; by default by the fast path.")
]
_CompileStep = Annotated[
    bool, typer.Option("--compile-step", help="Compile the step of a token; layers that train on a GPU are graphs.")
]
_Explain = Annotated[bool, typer.Option("--explain", help="Print every term: formula, share, provenance, bound.")]
_Trace = Annotated[
    bool, typer.Option("--trace", help="Set the op stream beside a trace of the worker's own step; nothing is computed.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("estimate")(_estimate)


def _estimate(
    plan_file: _PlanFile = None,
    model: _Model = None,
    system: _System = None,
    devices: DevicesOption = None,
    nodes: NodesOption = 1,
    stack: StackOption = None,
    task: _TaskOption = None,
    micro_batch: _MicroBatch = None,
    accumulation: _Accumulation = None,
    precision: _PrecisionOption = None,
    activation_checkpointing: _CheckpointingOption = None,
    checkpointed_layers: _CheckpointedLayers = None,
    threads: _Threads = None,
    attention: _Attention = None,
    compile_step: _CompileStep = False,
    explain: _Explain = False,
    trace: _Trace = False,
    as_json: JsonOption = False,
) -> None:
    """Estimate time, memory and energy of one plan, before anything runs; exit code 3 where it does not fit in memory.

    Example: txlplan estimate --model nvidia-wt103-base --system dgx-1 --micro-batch 32 --precision fp16 --explain
    """
    given = {name: value for name, value in locals().items() if name in _OF_PLAN and value is not None}
    if plan_file is not None:
        _refuse_beside_a_file(plan_file, {"model": model, "task": task, "compile_step": compile_step or None} | given)
        workload, plan, target = _of_file(plan_file, system, nodes, devices, stack)
    else:
        target, processes = shared_by(system or LOCAL, task or "train", n_nodes=nodes, n_devices=devices, stack=stack)
        workload = _workload(model, task or "train")
        plan = _plan(workload, target, processes, given | ({"compile": True} if compile_step else {}))
    asked = {"model": model, "system": system, "stack": stack, "devices": devices}
    output = Output(as_json)
    _answer(workload, target, plan, output, explain=explain, trace=trace)
    output.next_step(_next(plan_file, asked, workload, target, plan))


def _answer(workload: Workload, target: Candidate, plan: Plan, output: Output, *, explain: bool, trace: bool) -> None:
    """Estimate and print. Raises NoPlanFitsError, or ends with its exit code, where the plan does not fit."""
    from txlplan import planner
    from txlplan.cost import estimate

    estimates = estimate(workload, target.cluster, target.stack, [plan])
    found, fixes, refusal = estimates[0], [], None
    found = replace(found, notes=(*found.notes, *_lacking_here(workload, target, plan)))
    if not found.fits:
        fixes = planner.fixes(workload, target.cluster, target.stack, plan)
        refusal = planner.memory_refusal(workload, target.cluster, target.stack, estimates, 1, fixes)
    traced = compare(workload, target, plan) if trace else None
    document = _document(workload, target, plan, found, fixes) | ({} if traced is None else {"trace": as_document(traced)})
    output.result(document, lambda console: _print(console, workload, target, plan, found, explain, traced), refusal)


_FAST = '--attention fast (in a plan file, attention = "fast")'


def _lacking_here(workload: Workload, target: Candidate, plan: Plan) -> Iterator[str]:
    """What `txlplan run` does with the plan on this machine, where that lacks something which the plan needs."""
    if target.cluster.system.id != f"{LOCAL}-cpu":
        return
    from txlplan import resources
    from txlplan.engine.support import NO_COMPILER, own_attention_lacks

    if plan.attention == "compiled" and (lacking := own_attention_lacks(plan.precision, workload.task)):
        yield f"`txlplan run` refuses compiled attention here: {lacking}; {_FAST} needs none"
    if plan.compile and workload.task == "generate" and resources.cpp_compiler() is None:
        yield f"`txlplan run` does not compile the step here, and is slower: {NO_COMPILER}"


def _next(path: Path | None, asked: dict[str, Any], workload: Workload, target: Candidate, plan: Plan) -> str:
    """Run a plan file that runs; else the best plan for the same question (beside a file: one that runs)."""
    if path is not None and plan.runnable:
        return shlex.join(["txlplan", "run", str(path)])
    system = LOCAL
    if path is not None:
        system = target.cluster.system.id
        asked = asked | {"model": _named(workload.model.id), "stack": target.stack.id}
    nodes = target.cluster.n_nodes
    options = asked | {
        "system": asked["system"] or system,
        "nodes": nodes if nodes > 1 else None,
        "task": workload.task if workload.task != "train" else None,
        "tokens": workload.tokens or "1e8",
        "global-batch": workload.global_batch,
    }
    words = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    return shlex.join(["txlplan", "plan", *words, *(["--runnable", "-o", "plan.toml"] if path is not None else [])])


def _named(model: str) -> str:
    """The id of a known model, or else the file that it is likely to lie in."""
    from txlplan.model import models

    return model if model in models.paths() else f"{model}.toml"


def _refuse_beside_a_file(path: Path, options: dict[str, Any]) -> None:
    """What a plan file says itself. Raises InputError."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} has no effect beside {path}, which says it", hint="edit the plan file, or leave it out")


def _of_file(
    path: Path, system: str | None, nodes: int, devices: int | None, stack: str | None
) -> tuple[Workload, Plan, Candidate]:
    """What a plan file says; on as many nodes as the plan needs, where nobody says how many."""
    from txlplan.plan_file import read_plan_file

    given = read_plan_file(path)
    named, software = system or given.system, stack or given.stack
    target, _ = shared_by(named, given.workload.task, n_nodes=nodes, n_devices=devices, stack=software)
    if nodes == 1 and target.cluster.device.kind != "cpu" and given.plan.n_devices > target.cluster.n_devices:
        needed = -(-given.plan.n_devices // target.cluster.n_devices)
        target = candidate(named, n_nodes=needed, n_devices=devices, stack=software)
    return given.workload, given.plan, target


def _workload(model: str | None, task: Task) -> Workload:
    from txlplan.advice import workload_of

    if model is None:
        raise InputError("no model is named", hint="give --model (`txlplan model list` shows them) or a plan.toml")
    return workload_of(model, task)


def _plan(workload: Workload, target: Candidate, processes: int, given: dict[str, Any]) -> Plan:
    """The plan of the options; where no micro-batch is given, the published batch over the processes."""
    from txlplan.plan_file import Plan
    from txlplan.planner import global_batch

    device = target.cluster.device
    known, threads = tuple(device.peak_flops_per_s), given.get("threads")
    if threads is not None and device.kind != "cpu":
        raise InputError(f"--threads {threads} has no effect on {device.name}", hint="leave it out")
    if threads is not None and threads > device.cores:
        raise InputError(
            f"--threads {threads}: {device.name} has {device.cores} cores for a process", hint="leave it out for all"
        )
    share = (global_batch(workload) or processes) // (processes * max(given.get("accumulation", 1), 1))
    defaults = {"micro_batch": max(1, share), "precision": "fp32" if "fp32" in known else known[0]}
    return Plan(**{**defaults, "data_parallel": processes, **given})


def _document(workload: Workload, target: Candidate, plan: Plan, found: Estimate, fixes: Sequence[Fix]) -> dict[str, Any]:
    from txlplan.config import to_plain

    return {
        "model": workload.model.id,
        "task": workload.task,
        "system": target.cluster.system.id,
        "n_nodes": target.cluster.n_nodes,
        "plan": to_plain(plan),
        "estimate": to_plain(found),
        "fixes": to_plain(fixes),
    }


def _print(
    console: Console,
    workload: Workload,
    target: Candidate,
    plan: Plan,
    found: Estimate,
    explain: bool,
    traced: tuple[Quantity, ...] | None,
) -> None:
    from txlplan.planner import describe

    title = f"{workload.model.id}, {workload.task}, on {target.label}: {describe(plan)}"
    console.print(title, markup=False, highlight=False)
    print_estimate(console, found)
    if explain:
        print_terms(console, found)
    if traced is not None:
        print_trace(console, traced)
