"""`txlplan compare`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import ModelOption, StackOption, candidate, one_of, ranged, tokens_of
from txlplan.units import format_j, format_rate, format_s, format_usd

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.planner import Candidate, Comparison, Row

_COUNTED = re.compile(r"^(\d+)x(.+)$")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare")(_compare)


def _compare(
    model: ModelOption,
    tokens: Annotated[str, typer.Option("--tokens", help="Tokens to train on or to score, e.g. 1.8e9.")],
    on: Annotated[
        str,
        typer.Option("--on", metavar="A,B,…", help="Systems, comma-separated; `2xdgx-1` is two nodes, `local` this machine."),
    ],
    task: Annotated[str, typer.Option("--task", help="train, score or generate.")] = "train",
    global_batch: Annotated[int | None, typer.Option("--global-batch", help="Sequences per step, all devices.")] = None,
    rank_by: Annotated[str, typer.Option("--rank-by", help="time or cost.")] = "time",
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank systems for a workload by time or cost, each with its best plan.

    Example: txlplan compare --model nvidia-wt103-base --tokens 1.8e9 --on dgx-1,p3.16xlarge,dgx-a100-40gb
    """
    from txlplan import planner
    from txlplan.model import models
    from txlplan.workload import Workload

    workload = Workload(
        model=models.get(model),
        task=one_of(task, ("train", "score", "generate"), "--task"),
        tokens=tokens_of(tokens),
        global_batch=global_batch,
        objective="cheapest" if rank_by == "cost" else "fastest",
    )
    named = dict.fromkeys(name.strip() for name in on.split(",") if name.strip())
    candidates = [_candidate(name, stack) for name in named]
    comparison = planner.compare(workload, candidates, rank_by=one_of(rank_by, ("time", "cost"), "--rank-by"))
    output = Output(as_json)
    output.document(_document(comparison), lambda console: _print(console, comparison))
    best = comparison.rows[0].candidate.cluster.system.id
    output.next_step(f"txlplan plan --model {model} --system {best} --tokens {tokens} -o plan.toml")


def _candidate(name: str, stack: str | None) -> Candidate:
    counted = _COUNTED.match(name)
    return candidate(counted[2] if counted else name, n_nodes=int(counted[1]) if counted else 1, stack=stack)


def _document(comparison: Comparison) -> dict[str, Any]:
    return {
        "rank_by": comparison.rank_by,
        "verdict": comparison.verdict,
        "candidates": [_plain(row) for row in comparison.rows],
    }


def _plain(row: Row) -> dict[str, Any]:
    from txlplan.config import to_plain

    choice = row.choice
    return {
        "system": row.candidate.cluster.system.id,
        "n_nodes": row.candidate.cluster.n_nodes,
        "stack": row.candidate.stack.id,
        "plan": to_plain(choice.plan) if choice else None,
        "estimate": to_plain(choice.estimate) if choice else None,
        "totals": to_plain(choice.totals) if choice else None,
        "reason": row.reason or None,
    }


def _print(console: Console, comparison: Comparison) -> None:
    from rich.table import Table

    from txlplan.planner import describe

    table = Table(box=None, pad_edge=False)
    for header in ("system", "time", "cost", "energy", "throughput", "plan"):
        table.add_column(header, overflow="fold")
    for row in comparison.rows:
        if row.choice is None:
            table.add_row(row.candidate.label, "no plan", "", "", "", row.reason)
            continue
        totals, speed = row.choice.totals, row.choice.estimate.tokens_per_s.value
        table.add_row(
            row.candidate.label,
            ranged(totals.time_s, format_s),
            ranged(totals.cost_usd, format_usd),
            ranged(totals.energy_j, format_j),
            format_rate(speed, "tokens"),
            describe(row.choice.plan),
        )
    console.print(table)
    console.print(comparison.verdict, markup=False, highlight=False)
