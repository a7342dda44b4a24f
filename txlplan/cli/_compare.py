"""`txlplan compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import StackOption, ranged
from txlplan.errors import BarMissedError, InputError
from txlplan.units import format_j, format_rate, format_s, format_usd

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.advice import Advice
    from txlplan.planner import Account, Comparison, Sensitivity
    from txlplan.reporting import Format

_FORMATS: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare")(_compare)


def _compare(
    scenario: Annotated[Path | None, typer.Argument(metavar="SCENARIO_TOML", help="The whole question as a file.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Id of a model (`txlplan model list`) or a .toml file.")] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Tokens to train on or to score, e.g. 1.8e9.")] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="A,B,…", help="Candidates: dgx-1, 2xdgx-1 (two nodes), 1..64xdgx-1 (any number), local."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="train, score or generate; by default train.")] = None,
    global_batch: Annotated[int | None, typer.Option("--global-batch", help="Sequences per step, all devices.")] = None,
    rank_by: Annotated[str | None, typer.Option("--rank-by", help="time, cost or energy; by default time.")] = None,
    pay: Annotated[
        str | None, typer.Option("--pay", help="rent, spot or buy; by default auto: rent where a rent is known, else buy.")
    ] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="Longest time, e.g. '3 d'.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", help="Most money per run, e.g. '500 USD'; a purchase is counted by its share of the machine's life."
        ),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price", metavar="SYSTEM=PRICE", help="18.50/h, 'spot 7.10/h' or '150000 USD'. Repeatable; one of each kind."
        ),
    ] = None,
    device_like: Annotated[
        str | None, typer.Option("--device-like", metavar="DEVICE", help="Compare a hypothetical variant of this device too.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What the variant has otherwise. Repeatable.")
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option("--assume", metavar="KEY=VALUE", help="Of profiles/economics, e.g. utilisation=0.7. Repeatable."),
    ] = None,
    runnable: Annotated[bool, typer.Option("--runnable", help="Only plans that `txlplan run` executes.")] = False,
    stack: StackOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a self-contained offline report here.")] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", help="Write the answer here too: .html, .md, .csv or .json. Repeatable."),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on", metavar="CONDITION", help="Exit 5 if it holds: 'cost > 500', 'probability < 80%'. Repeatable."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which hardware to take for a workload: best plan, time, cost and energy of every candidate, with ranges.

    Evaluation, checkpoints and failures are counted. Options override the scenario file.

    Example: txlplan compare --model nvidia-wt103-base --tokens 1.8e9 --on dgx-1,p3.16xlarge,1..4xp4d.24xlarge
    """
    from txlplan import advice

    options: dict[str, Any] = {
        "model": model,
        "tokens": tokens,
        "on": None if on is None else [name.strip() for name in on.split(",") if name.strip()],
        "task": task,
        "global_batch": global_batch,
        "rank_by": rank_by,
        "pay": pay,
        "deadline": deadline,
        "budget": budget,
        "prices": _prices(price),
        "assume": _values(assume, "--assume"),
        "what_if": _what_if(device_like, set_),
        "runnable": runnable or None,
        "stack": stack,
    }
    _require(scenario, options)
    written = [(path, _format(path)) for path in (html, *(out or ())) if path is not None]
    bars = [advice.bar(condition) for condition in fail_on or ()]
    found = advice.compare(scenario, **options)
    failed = [text for each in bars if (text := each(found.comparison))]
    for path, format_ in written:
        found.write(path, format=format_)
    output = Output(as_json)
    output.document(found.to_dict() | {"failed": failed}, lambda console: _print(console, found, written))
    if failed:
        for text in failed:
            output.say(f"failed: {text}")
        raise typer.Exit(BarMissedError.exit_code)
    output.next_step(_plan_of_the_first(found))


def _plan_of_the_first(found: Advice) -> str:
    """The command that plans for the candidate that is recommended (a part that does not exist: for its like)."""
    asked, row = found.scenario, found.comparison.rows[0]
    cluster = row.recommended.candidate.cluster
    given = {
        "--model": asked.model,
        "--system": cluster.system.id,
        "--nodes": cluster.n_nodes if cluster.n_nodes > 1 else None,
        "--task": asked.task if asked.task != "train" else None,
        "--tokens": asked.tokens,
        "--global-batch": asked.global_batch,
        "--stack": asked.stack,
        "--objective": {"cost": "cheapest", "energy": "least-energy"}.get(asked.rank_by),
    }
    words = [f"{option} {value}" for option, value in given.items() if value is not None]
    return " ".join(["txlplan plan", *words, *(["--runnable"] if asked.runnable else []), "-o plan.toml"])


def _require(scenario: Path | None, options: dict[str, Any]) -> None:
    """What a comparison without a file cannot do without."""
    if scenario is not None:
        return
    hints = {"model": "nvidia-wt103-base", "tokens": "1.8e9", "on": "dgx-1,dgx-a100-40gb"}
    for name, example in hints.items():
        if options[name] is None:
            raise InputError(f"--{name} is missing", hint=f"for example --{name} {example}; or give a scenario.toml")


def _pairs(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    """`KEY=VALUE` texts, as they are. Raises InputError."""
    pairs = []
    for text in texts or ():
        name, value = (part.strip() for part in text.partition("=")[::2])
        if not (name and value):
            raise InputError(f"{option} {text!r}: write it as KEY=VALUE")
        pairs.append((name, value))
    return pairs


def _prices(texts: list[str] | None) -> dict[str, list[str]] | None:
    """Every price of each system: rent, spot and purchase may all be stated."""
    found: dict[str, list[str]] = {}
    for system, text in _pairs(texts, "--price"):
        found.setdefault(system, []).append(text)
    return found or None


def _values(texts: list[str] | None, option: str) -> dict[str, Any] | None:
    """Values by key, as TOML reads them: numbers and booleans are such, all else is text. Raises InputError."""
    import tomllib

    def value(text: str) -> Any:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text

    found: dict[str, Any] = {}
    for key, text in _pairs(texts, option):
        if key in found:
            raise InputError(f"{option} {key} is stated twice", hint="state each key once")
        found[key] = value(text)
    return found or None


def _what_if(device_like: str | None, set_: list[str] | None) -> list[dict[str, Any]] | None:
    if device_like is None:
        if set_:
            raise InputError("--set without --device-like", hint="name the device that is varied")
        return None
    return [{"like": device_like, "set": _values(set_, "--set") or {}}]


def _format(path: Path) -> Format:
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: {path.suffix or 'no suffix'!r} tells no format", hint="use .html, .md, .csv or .json")
    return _FORMATS[path.suffix.lower()]


def _print(console: Console, found: Advice, written: list[tuple[Path, Format]]) -> None:
    comparison = found.comparison
    _print_candidates(console, comparison)
    _print_what_if(console, comparison)
    for text in comparison.warnings:
        console.print(f"note: {text}", markup=False, highlight=False)
    for path, _ in written:
        console.print(f"wrote {path}", markup=False, highlight=False)
    for text in comparison.verdict.details:
        console.print(text, markup=False, highlight=False)
    console.print(found.verdict, markup=False, highlight=False)


def _print_candidates(console: Console, comparison: Comparison) -> None:
    from rich.table import Table

    from txlplan.planner import describe

    table = Table(box=None, pad_edge=False)
    for header in ("candidate", "time", "cost", "energy", "throughput", "paid by", "front", "plan"):
        table.add_column(header, overflow="fold")
    for row in comparison.rows:
        if row.best is None or row.best.planned is None:
            table.add_row(row.label, "out", "", "", "", "", "", row.reason)
            continue
        account, choice = row.account, row.best.planned.choice
        table.add_row(
            row.label,
            ranged(account.time_s, format_s),
            ranged(account.cost_usd, format_usd),
            ranged(account.energy_j, format_j),
            format_rate(choice.estimate.tokens_per_s.value, "tokens"),
            _paid_by(account),
            "yes" if row.on_front else "",
            describe(choice.plan),
        )
    console.print(table)


def _paid_by(account: Account) -> str:
    """`rent`, or `buy, an outlay of $149,000`."""
    from txlplan.planner import outlay

    return ", ".join(filter(None, (account.way or "unknown", outlay(account))))


def _print_what_if(console: Console, comparison: Comparison) -> None:
    """Scaling, break-even and sensitivity, a line each."""
    for row in comparison.rows:
        if len(row.sizes) > 1:
            steps = [
                f"{size.planned.n_devices}: {size.efficiency:.0%}"
                for size in row.sizes
                if size.planned and size.efficiency is not None
            ]
            console.print(f"efficiency of {row.offer.label} by devices: {', '.join(steps)}", markup=False, highlight=False)
    for one in comparison.break_evens:
        console.print(f"buying {one.bought} instead of renting {one.rented} {one.answer}", markup=False, highlight=False)
    for case in comparison.sensitivities:
        console.print(f"if {case.change}: {_then(case)}", markup=False, highlight=False)


def _then(case: Sensitivity) -> str:
    if case.changes is None:
        return "cannot be told: its price, or what candidates are ranked by, is unknown"
    if not case.best:
        return "every candidate misses the deadline or the budget"
    return f"take {case.best} instead" if case.changes else "the recommendation stands"
