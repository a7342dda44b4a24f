"""`txlplan compare`."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli import _compare_output
from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import (
    DeadlineOption,
    MaxPowerOption,
    MemoryHeadroomOption,
    RunnableOption,
    StackOption,
    WithoutOption,
)
from txlplan.errors import BarMissedError, InputError

if TYPE_CHECKING:
    from txlplan.advice import Advice, Scenario
    from txlplan.planner import Row
    from txlplan.reporting import Format

_FORMATS: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json"}
_OBJECTIVES = {"cost": "cheapest", "energy": "least-energy"}

_ScenarioArgument = Annotated[Path | None, typer.Argument(metavar="SCENARIO_TOML", help="The whole question as a file.")]
_Model = Annotated[str | None, typer.Option("--model", help="Id of a model (`txlplan model list`) or a .toml file.")]
_Tokens = Annotated[str | None, typer.Option("--tokens", help="Tokens to train on or to score, e.g. 1.8e9.")]
_On = Annotated[
    str | None,
    typer.Option("--on", metavar="A,B,…", help="Candidates: dgx-1, 2xdgx-1 (two nodes), 1..64xdgx-1 (any number), local."),
]
_Task = Annotated[str | None, typer.Option("--task", help="train, score or generate; by default train.")]
_GlobalBatch = Annotated[int | None, typer.Option("--global-batch", help="Sequences per step, all devices.")]
_RankBy = Annotated[str | None, typer.Option("--rank-by", help="time, cost or energy; by default time.")]
_Pay = Annotated[
    str | None, typer.Option("--pay", help="rent, spot or buy; by default auto: rent where a rent is known, else buy.")
]
_Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", help="Most money per run, e.g. '500 USD'; a purchase is counted by its share of the machine's life."
    ),
]
_Price = Annotated[
    list[str] | None,
    typer.Option(
        "--price", metavar="SYSTEM=PRICE", help="18.50/h, 'spot 7.10/h' or '150000 USD'. Repeatable; one of each kind."
    ),
]
_DeviceLike = Annotated[
    str | None, typer.Option("--device-like", metavar="DEVICE", help="Compare a hypothetical variant of this device too.")
]
_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What the variant has otherwise. Repeatable.")
]
_Assume = Annotated[
    list[str] | None,
    typer.Option("--assume", metavar="KEY=VALUE", help="Of profiles/economics, e.g. utilisation=0.7. Repeatable."),
]
_Html = Annotated[Path | None, typer.Option("--html", help="Write a self-contained offline report here.")]
_Out = Annotated[
    list[Path] | None,
    typer.Option("-o", "--output", help="Write the answer here too: .html, .md, .csv or .json. Repeatable."),
]
_FailOn = Annotated[
    list[str] | None,
    typer.Option("--fail-on", metavar="CONDITION", help="Exit 5 if it holds: 'cost > 500', 'probability < 80%'. Repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare")(_compare)


def _compare(
    scenario: _ScenarioArgument = None,
    model: _Model = None,
    tokens: _Tokens = None,
    on: _On = None,
    task: _Task = None,
    global_batch: _GlobalBatch = None,
    rank_by: _RankBy = None,
    pay: _Pay = None,
    deadline: DeadlineOption = None,
    budget: _Budget = None,
    max_power: MaxPowerOption = None,
    memory_headroom: MemoryHeadroomOption = None,
    without: WithoutOption = None,
    price: _Price = None,
    device_like: _DeviceLike = None,
    set_: _Set = None,
    assume: _Assume = None,
    runnable: RunnableOption = False,
    stack: StackOption = None,
    html: _Html = None,
    out: _Out = None,
    fail_on: _FailOn = None,
    as_json: JsonOption = False,
) -> None:
    """Say which hardware to take for a workload: best plan, time, cost and energy of every candidate, with ranges.

    Evaluation, checkpoints and failures are counted. Options override the scenario file.

    Example: txlplan compare --model nvidia-wt103-base --tokens 1.8e9 --on dgx-1,p3.16xlarge,1..4xp4d.24xlarge
    """
    options = _options(locals())
    _require(scenario, options)
    _answer(scenario, options, [path for path in (html, *(out or ())) if path], fail_on or [], Output(as_json))


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of a scenario, by their TOML keys; None where an option says nothing."""
    limits = ("deadline", "budget", "max_power", "memory_headroom")
    plain = ("model", "tokens", "task", "global_batch", "rank_by", "pay", "stack", *limits)
    return {name: given[name] for name in plain} | {
        "on": None if given["on"] is None else [name.strip() for name in given["on"].split(",") if name.strip()],
        "without": None if given["without"] is None else given["without"].replace(",", " ").split(),
        "prices": _prices(given["price"]),
        "assume": _values(given["assume"], "--assume"),
        "what_if": _what_if(given["device_like"], given["set_"]),
        "runnable": given["runnable"] or None,
    }


def _answer(scenario: Path | None, options: dict[str, Any], paths: list[Path], fail_on: list[str], output: Output) -> None:
    """Compare, write and print. Exit code 5 where a condition holds."""
    from txlplan import advice

    written = [(path, _format(path)) for path in paths]
    bars = [advice.bar(condition) for condition in fail_on]
    found = advice.compare(scenario, **options)
    failed = [text for each in bars if (text := each(found.comparison))]
    for path, format_ in written:
        found.write(path, format=format_)
    output.document(found.to_dict() | {"failed": failed}, lambda console: _compare_output.show(console, found, paths))
    if failed:
        for text in failed:
            output.say(f"failed: {text}")
        raise typer.Exit(BarMissedError.exit_code)
    output.next_step(_next(found))


def _next(found: Advice) -> str:
    """The command that plans for what is recommended, or for the first that exists beside it."""
    asked = found.scenario
    row = next((row for row in found.comparison.ranked if not row.offer.hypothetical), None)
    if row is None:
        return shlex.join(["txlplan", "hardware", "show", asked.what_if[0].like])
    nodes = row.recommended.candidate.cluster.n_nodes
    given = {
        "--model": asked.model,
        "--system": row.offer.asked,
        "--nodes": nodes if nodes > 1 else None,
        "--task": asked.task if asked.task != "train" else None,
        "--tokens": asked.tokens,
        "--global-batch": asked.global_batch,
        **_limits(row, asked),
        "--stack": asked.stack,
        "--objective": _objective(row, asked.rank_by),
    }
    words = [text for option, value in given.items() if value is not None for text in (option, str(value))]
    return shlex.join(["txlplan", "plan", *words, *(["--runnable"] if asked.runnable else []), "-o", "plan.toml"])


def _limits(row: Row, asked: Scenario) -> dict[str, str | float | None]:
    """Of the plan, which counts steps alone: their share of deadline and budget, rounded down.

    It knows a rent on demand, and none that was stated for once: a budget of anything else is not passed on.
    """
    from txlplan.advice import STATED

    account = row.recommended.account
    assert account is not None
    steps = account.duration.steps_s / account.time_s.value
    rented = account.way == "rent" and account.price is not None and account.price.source != STATED
    return {
        "--deadline": None if asked.deadline_s is None else f"{_down(asked.deadline_s * steps)} s",
        "--budget": f"{_down(asked.budget_usd * steps)} USD" if asked.budget_usd is not None and rented else None,
        "--max-power": None if asked.max_power_w is None else f"{asked.max_power_w!r} W",
        "--memory-headroom": asked.memory_headroom,
        "--without": ",".join(asked.without) or None,
    }


def _down(value: float) -> float:
    """To a hundredth."""
    return math.floor(value * 100) / 100


def _objective(row: Row, rank_by: str) -> str | None:
    """Of the plan; the cheapest can be asked for only where a price is known beside those that were stated for once."""
    from txlplan.advice import STATED

    prices = row.recommended.candidate.cluster.system.prices
    if rank_by == "cost" and all(price.source == STATED for price in prices):
        return None
    return _OBJECTIVES.get(rank_by)


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
