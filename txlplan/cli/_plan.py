"""`txlplan plan`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.choices import Precision
from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import (
    LOCAL,
    DevicesOption,
    ModelOption,
    NodesOption,
    StackOption,
    SystemOption,
    candidate,
    one_of,
    print_estimate,
    ranged,
    tokens_of,
)
from txlplan.errors import InputError
from txlplan.units import format_bytes, format_j, format_rate, format_s, format_usd

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.model import ModelConfig
    from txlplan.plan_file import DataSettings, PlanFile
    from txlplan.planner import Candidate, Choice
    from txlplan.units import Quantity
    from txlplan.workload import Workload


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(_plan)


def _plan(
    model: ModelOption,
    system: SystemOption = LOCAL,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Tokens to train on, score or generate, e.g. 1e8.")] = None,
    task: Annotated[str, typer.Option("--task", help="train, score or generate.")] = "train",
    global_batch: Annotated[
        str | None,
        typer.Option(
            "--global-batch",
            help="Sequences per step, all devices: 256, or a range 64..256; 64.. ends at the largest published with the model. "
            "Default: the model's published one.",
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="fastest, cheapest, least-energy or fewest-devices (by a deadline).")
    ] = "fastest",
    deadline: Annotated[str | None, typer.Option("--deadline", help="Longest time, e.g. '3 d'.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Most rent, e.g. '500 USD'.")] = None,
    max_power: Annotated[str | None, typer.Option("--max-power", help="Most rated power in use, e.g. '10 kW'.")] = None,
    without: Annotated[
        str | None,
        typer.Option("--without", metavar="A,B,…", help="tensor-, pipeline-, context-parallel, zero, offload, checkpointing."),
    ] = None,
    precision: Annotated[Precision | None, typer.Option("--precision", help="Only this arithmetic.")] = None,
    micro_batch: Annotated[int | None, typer.Option("--micro-batch", min=1, help="Only so many sequences at a time.")] = None,
    runnable: Annotated[bool, typer.Option("--runnable", help="Only plans that `txlplan run` executes.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why other values of each setting were not chosen.")] = False,
    devices: DevicesOption = None,
    nodes: NodesOption = 1,
    stack: StackOption = None,
    data: Annotated[Path, typer.Option("--data", help="Directory that `txlplan data prepare` wrote.")] = Path("data"),
    run_directory: Annotated[Path, typer.Option("--run-dir", help="Where the run will keep its files.")] = Path("runs/run"),
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", help="Weights to score or generate with.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan file here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best plan for a model on a machine, and write it as a plan file that `txlplan run` takes.

    Example: txlplan plan --model demo-bytes --tokens 1e8 --data data/sotu -o plan.toml
    """
    from txlplan import planner
    from txlplan.config import to_plain
    from txlplan.cost import tokens_per_step
    from txlplan.plan_file import PlanFile, RunSettings, write_plan_file

    target = candidate(system, n_nodes=nodes, n_devices=devices, stack=stack)
    workload = _limited(_workload(model, task, tokens_of(tokens), global_batch, objective), deadline, budget, max_power)
    settings, workload = _with_data(workload, data)
    asked = planner.Space(
        runnable=runnable,
        precision=(precision,) if precision else None,
        micro_batch=(micro_batch,) if micro_batch else None,
    )
    space = planner.without(asked, (without or "").replace(",", " ").split())
    choice = planner.plan(workload, target.cluster, target.stack, space=space, explain=explain)
    if workload.largest_global_batch is not None:
        workload = replace(workload, global_batch=choice.plan.global_batch, largest_global_batch=None)
    if workload.task == "train" and workload.tokens is not None:
        steps = -(-workload.tokens // tokens_per_step(workload, choice.plan))
        workload = replace(workload, optimization=planner.recipe(workload.model, steps))
    plan_file = PlanFile(
        system=target.cluster.system.id,
        stack=target.stack.id,
        workload=workload,
        plan=choice.plan,
        data=settings,
        run=RunSettings(
            directory=str(run_directory.resolve()),
            runner="local" if choice.plan.n_devices == 1 else "torchrun",
            device="cuda" if target.cluster.device.kind == "gpu" else "cpu",
            checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
        ),
    )
    if out is not None:
        write_plan_file(out, plan_file)
    output = Output(as_json)
    output.document(
        {"choice": to_plain(choice), "plan_file": to_plain(plan_file), "path": None if out is None else str(out)},
        lambda console: _print(console, target, plan_file, choice, out),
    )
    again: dict[str, object] = {"--model": model, "--system": system, "--tokens": tokens, "--task": task}
    again |= {"--global-batch": global_batch, "--precision": precision, "--micro-batch": micro_batch}
    again |= {"--deadline": deadline, "--budget": budget, "--max-power": max_power, "--without": without}
    again |= {"--objective": objective, "--devices": devices, "--nodes": nodes, "--stack": stack, "--data": data}
    again |= {"--run-dir": run_directory, "--checkpoint": checkpoint, "--output": out or "plan.toml"}
    given = [str(part) for name, value in again.items() if value is not None for part in (name, value)]
    if not choice.runnable:
        given.append("--runnable")
    output.next_step(f"txlplan run {out}" if out and choice.runnable else f"txlplan plan {shlex.join(given)}")


def _limited(workload: Workload, deadline: str | None, budget: str | None, max_power: str | None) -> Workload:
    """With the limits of the options. Raises InputError that names the option."""
    from txlplan.units import SECONDS, USD, WATTS

    def parsed(option: str, text: str | None, quantity: Quantity) -> float | None:
        try:
            return None if text is None else quantity.parse(text)
        except ValueError as error:
            raise InputError(f"{option}: {error}") from None

    return replace(
        workload,
        deadline_s=parsed("--deadline", deadline, SECONDS),
        budget_usd=parsed("--budget", budget, USD),
        power_cap_w=parsed("--max-power", max_power, WATTS),
    )


def _workload(model: str, task: str, tokens: int | None, global_batch: str | None, objective: str) -> Workload:
    """As `txlplan run` trains where nobody says otherwise."""
    from txlplan.model import models
    from txlplan.planner import recipe
    from txlplan.workload import Optimization, Workload

    config = models.get(model)
    first, last = _batches(global_batch, config)
    return Workload(
        model=config,
        task=one_of(task, ("train", "score", "generate"), "--task"),
        tokens=tokens,
        global_batch=first,
        largest_global_batch=last,
        optimization=recipe(config, None) if task == "train" else Optimization(),
        objective=one_of(objective, ("fastest", "cheapest", "least-energy", "fewest-devices"), "--objective"),
    )


def _batches(text: str | None, model: ModelConfig) -> tuple[int | None, int | None]:
    """`256`, `64..256` or `64..`: first and largest; what a published run ends an open range with. Raises InputError."""
    if text is None:
        return None, None
    first, dots, last = text.partition("..")
    known = model.largest_published_batch or model.published_batch
    if dots and not last and known is None:
        raise InputError(
            f"--global-batch {text}: {model.id} has no published batch that ends it", hint="write its end: 64..256"
        )
    try:
        return int(first), (int(last) if last else known) if dots else None
    except ValueError:
        raise InputError(f"--global-batch {text!r} is neither a number nor a range", hint="write 256, or 64..256") from None


def _with_data(workload: Workload, directory: Path) -> tuple[DataSettings, Workload]:
    """What is read, and the workload with its length; data that is not here yet is taken on trust.

    Raises DataError for data that the model cannot take.
    """
    from txlplan.data import open_dataset
    from txlplan.plan_file import DataSettings

    training = workload.task == "train"
    settings = DataSettings(directory=str(directory.resolve()), split="train" if training else "test")
    if not directory.exists():
        return settings, workload
    dataset = open_dataset(directory)
    dataset.vocabulary.check(workload.model.vocab_size)
    if training and "valid" in dataset.manifest.splits:
        settings = replace(settings, evaluation_split="valid")
    if training and workload.tokens is None:
        workload = replace(workload, tokens=dataset.split("train").tokens)
    return settings, workload


def _print(console: Console, target: Candidate, plan_file: PlanFile, choice: Choice, out: Path | None) -> None:
    from txlplan.planner import describe

    workload = plan_file.workload
    title = f"{workload.model.id}, {workload.task}, on {target.label}: {describe(choice.plan)}"
    console.print(title, markup=False, highlight=False)
    print_estimate(console, choice.estimate)
    if workload.tokens is not None:
        totals = choice.totals
        console.print(
            f"{workload.tokens:,} tokens: {ranged(totals.time_s, format_s)}, {ranged(totals.cost_usd, format_usd)} rent, "
            f"{ranged(totals.energy_j, format_j)}",
            markup=False,
            highlight=False,
        )
    cut = (
        f", {choice.n_considered - choice.n_costed:,} more proven to be worse" if choice.n_considered > choice.n_costed else ""
    )
    console.print(f"{choice.n_costed:,} plans costed, {choice.n_fitting:,} of them fit{cut}", markup=False, highlight=False)
    if choice.optimum is not None:
        console.print(
            f"simpler than the best plan by its figures, {-choice.optimum.behind:.1%} better than this one, which the ranges "
            f"cannot tell apart: {describe(choice.optimum.plan)}",
            markup=False,
            highlight=False,
        )
    for reason in choice.plan.not_runnable():
        console.print(f"cannot be run yet: {reason}", markup=False, highlight=False)
    _print_runners_up(console, choice)
    _print_rejections(console, choice)
    if out is not None:
        console.print(f"wrote {out}", markup=False, highlight=False)


def _print_runners_up(console: Console, choice: Choice) -> None:
    from rich.table import Table

    if not choice.runners_up:
        return
    table = Table(box=None, pad_edge=False)
    for header in ("runner-up", "behind", "throughput", "peak memory"):
        table.add_column(header, justify="left" if header == "runner-up" else "right", overflow="fold")
    for other in choice.runners_up:
        speed: Any = format_rate(other.estimate.tokens_per_s.value, "tokens")
        table.add_row(other.difference, f"{other.behind:.1%}", speed, format_bytes(other.estimate.peak_memory_bytes.value))
    console.print(table)


def _print_rejections(console: Console, choice: Choice) -> None:
    from rich.table import Table

    if not choice.rejections:
        return
    table = Table(box=None, pad_edge=False)
    for header in ("not chosen", "behind", "why"):
        table.add_column(header, justify="right" if header == "behind" else "left", overflow="fold")
    for one in choice.rejections:
        table.add_row(f"{one.setting} {one.value}", "out" if one.behind is None else f"{one.behind:+.1%}", one.reason)
    console.print(table)
