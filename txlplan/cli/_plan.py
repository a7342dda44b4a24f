"""`txlplan plan`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.choices import AttentionPath, Precision
from txlplan.cli import _plan_output
from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import (
    LOCAL,
    DeadlineOption,
    DevicesOption,
    MaxPowerOption,
    MemoryHeadroomOption,
    ModelOption,
    RunnableOption,
    StackOption,
    WithoutOption,
)

if TYPE_CHECKING:
    from txlplan.advice import Proposal

_System = Annotated[
    str | None,
    typer.Option(
        "--system", metavar="SYSTEM", help="Id of a system or a device, a .toml file; by default `local`: this machine."
    ),
]
_Nodes = Annotated[int | None, typer.Option("--nodes", help="How many of the system; by default one.")]
_Tokens = Annotated[str | None, typer.Option("--tokens", help="Tokens to train on, score or generate, e.g. 1e8.")]
_Task = Annotated[str | None, typer.Option("--task", help="train, score or generate; by default train.")]
_GlobalBatch = Annotated[
    str | None,
    typer.Option(
        "--global-batch",
        help="Sequences per step, all devices: 256, or a range 64..256; 64.. ends at the largest published with the model. "
        "By default the model's published one.",
    ),
]
_Objective = Annotated[
    str | None,
    typer.Option("--objective", help="fastest (by default), cheapest, least-energy or fewest-devices (by a deadline)."),
]
_Budget = Annotated[str | None, typer.Option("--budget", help="Most rent, e.g. '500 USD'.")]
_PrecisionOption = Annotated[Precision | None, typer.Option("--precision", help="Only this arithmetic.")]
_Attention = Annotated[AttentionPath | None, typer.Option("--attention", help="Only attention computed this way.")]
_MicroBatch = Annotated[int | None, typer.Option("--micro-batch", min=1, help="Only so many sequences at a time.")]
_Explain = Annotated[bool, typer.Option("--explain", help="Say why other values of each setting were not chosen.")]
_Data = Annotated[Path | None, typer.Option("--data", help="Directory that `txlplan data prepare` wrote.")]
_RunDirectory = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run will keep its files; by default runs/run.")
]
_Checkpoint = Annotated[Path | None, typer.Option("--checkpoint", help="Weights to score or generate with.")]
_Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write the plan as an offline page.")]
_Out = Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan file here.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(plan)


def plan(
    model: ModelOption,
    system: _System = None,
    tokens: _Tokens = None,
    task: _Task = None,
    global_batch: _GlobalBatch = None,
    objective: _Objective = None,
    deadline: DeadlineOption = None,
    budget: _Budget = None,
    max_power: MaxPowerOption = None,
    memory_headroom: MemoryHeadroomOption = None,
    without: WithoutOption = None,
    precision: _PrecisionOption = None,
    micro_batch: _MicroBatch = None,
    attention: _Attention = None,
    runnable: RunnableOption = False,
    explain: _Explain = False,
    devices: DevicesOption = None,
    nodes: _Nodes = None,
    stack: StackOption = None,
    data: _Data = None,
    run_dir: _RunDirectory = None,
    checkpoint: _Checkpoint = None,
    html: _Html = None,
    out: _Out = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best plan for a model on a machine, and write it as a plan file that `txlplan run` takes.

    Example: txlplan plan --model demo-bytes --tokens 1e8 --data data/sotu -o plan.toml
    """
    asked = {name: value for name, value in locals().items() if name not in ("html", "out", "as_json", "explain")}
    from txlplan import advice

    given = {name: value for name, value in asked.items() if value is not None and value is not False}
    listed = {"without": without.replace(",", " ").split()} if without is not None else {}
    found = advice.plan(explain=explain, **given | listed)
    written = [path for path in (out and found.write(out), html and found.to_html(html)) if path]
    output = Output(as_json)
    document = found.to_dict() | {"path": None if out is None else str(out)}
    output.document(document, lambda console: _plan_output.show(console, found, written))
    if out is not None and data is None:
        output.say(f"note: no --data was given; the plan file names {found.plan_file.data.directory}")
    output.next_step(_next(found, given, out))


def _next(found: Proposal, given: dict[str, Any], out: Path | None) -> str:
    """Run what was written; else the same question again, to be written, and for what runs."""
    if out is not None and found.choice.runnable:
        there = "" if given.get("system", LOCAL) == LOCAL else f"   # on {found.target.label}"
        return f"txlplan run {shlex.quote(str(out))}{there}"
    asked = given | {"output": out or "plan.toml"} | ({} if found.choice.runnable else {"runnable": True})
    words = ["txlplan", "plan"]
    for name, value in asked.items():
        words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return shlex.join(words)
