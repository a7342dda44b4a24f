"""`txlplan bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from txlplan.choices import Task
from txlplan.cli._output import JsonOption, Output, Stopped
from txlplan.errors import BarMissedError, InputError, RunFailedError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.benchmarks import Bench, Change, Matrix, Row
    from txlplan.benchmarks import Spread as Spread_
    from txlplan.records import Record

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(bench)


def bench(
    matrix: Annotated[Path | None, typer.Argument(metavar="BENCH_TOML", help="The matrix as a file.")] = None,
    model: Annotated[str | None, typer.Option(help="Models, separated by commas.")] = None,
    task: Annotated[Task | None, typer.Option(help="What to do; by default train.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32,bf16,…")] = None,
    micro_batch: Annotated[str | None, typer.Option(help="Sequences per device, like 4,8.")] = None,
    accumulation: Annotated[str | None, typer.Option(help="Micro-batches per step, like 1,2.")] = None,
    activation_checkpointing: Annotated[str | None, typer.Option(help="none,attention,feed-forward,full")] = None,
    attention: Annotated[str | None, typer.Option(help="fast,compiled,reference: how attention is computed.")] = None,
    compile_step: Annotated[
        bool, typer.Option("--compile-step", help="Compile the step of a token; layers that train on a GPU are graphs.")
    ] = False,
    threads: Annotated[
        str | None, typer.Option(help="CPU threads a process, like 1,2; by default all (a plan may choose fewer).")
    ] = None,
    devices: Annotated[str | None, typer.Option(help="Data-parallel processes, like 1,2.")] = None,
    steps: Annotated[int | None, typer.Option(help="Timed steps of a repeat; by default 20.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps before them; by default 3.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Runs of each case; by default 3.")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data; by default synthetic.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with a benchmark that was cut short.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="ID", help="Compare with this earlier benchmark or record, case by case.")
    ] = None,
    fail_on: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="With --against: exit 5 if a case is slower by more, e.g. 5%.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a matrix of models and plans: interleaved repeats, each a process and a record of its own.

    The table sets the median of the repeats, with its spread, beside the prediction, and says when the machine was
    not steady. --resume skips what is recorded already. --against adds the change of each case since, with its 95 %
    interval; with --fail-on a case counts as slower when it is so by more than that, and its interval lies below zero.

    Example: txlplan bench --model demo-bytes --micro-batch 4,8 --repeats 3
    """
    bench_id, wanted, earlier, share = _checked(dict(locals()))
    output = Output(as_json)
    output.say(f"benchmark {bench_id}")
    from txlplan.benchmarks import run_bench

    found = run_bench(bench_id, wanted, on_repeat=_announce(output))
    _finish(output, found, earlier, share)


_LISTS: dict[str, Callable[[str], Any]] = {
    "model": str,
    "precision": str,
    "micro_batch": int,
    "accumulation": int,
    "activation_checkpointing": str,
    "attention": str,
    "threads": int,
    "devices": int,
}
_SINGLE = ("task", "steps", "warmup_steps", "repeats")


def _checked(options: dict[str, Any]) -> tuple[str, Matrix, list[Record], float | None]:
    """What to run and what to compare it with, all found and read before anything starts."""
    from txlplan.benchmarks import baseline
    from txlplan.records import open_store

    share = _share(options["fail_on"])
    if share is not None and options["against"] is None:
        raise InputError("--fail-on without --against", hint="name the benchmark or record to compare with")
    earlier = [] if options["against"] is None else baseline(open_store(), options["against"])
    return *_prepared(options), earlier, share


def _share(text: str | None) -> float | None:
    """`5%` or `0.05`. Raises InputError."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InputError(f"--fail-on {text!r} is no share of the speed", hint="write it like 5%")
    return share


def _prepared(options: dict[str, Any]) -> tuple[str, Matrix]:
    """The benchmark's id and matrix: a stored one, or a new one from a file, from options, or from both."""
    from txlplan.benchmarks import create, stored_matrix
    from txlplan.records import new_id

    given: dict[str, Any] = {
        name: _items(options[name], kind, name) for name, kind in _LISTS.items() if options[name] is not None
    }
    given |= {name: options[name] for name in _SINGLE if options[name] is not None}
    if options["compile_step"]:
        given["compile"] = [True]
    if options["data"] is not None:
        given["data"] = str(options["data"].absolute())
    if options["resume"] is not None:
        if given or options["matrix"] is not None:
            raise InputError("--resume takes the matrix of the benchmark that it continues: leave the rest out")
        return options["resume"], stored_matrix(options["resume"])
    matrix = _matrix(options["matrix"], given)
    bench_id = new_id()
    create(bench_id, matrix)
    return bench_id, matrix


def _matrix(path: Path | None, given: dict[str, Any]) -> Matrix:
    from txlplan.benchmarks import matrix_of, read_matrix
    from txlplan.config import to_plain

    if path is None and "model" not in given:
        raise InputError("say what to measure: --model, or a bench.toml", hint="`txlplan bench --help` has an example")
    base = to_plain(read_matrix(path)) if path is not None else {}
    return matrix_of({**base, **given}, "options of bench")


def _items(text: str, kind: Callable[[str], T], name: str) -> list[T]:
    try:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--{name.replace('_', '-')} {text!r}: not a list of numbers like 4,8") from None


def _announce(output: Output) -> Any:
    from txlplan.benchmarks import Repeat
    from txlplan.launcher import describe

    def on_repeat(repeat: Repeat, _estimate: object) -> None:
        output.say(f"[{repeat.position}/{repeat.total}] {repeat.case.model.id}: {describe(repeat.case.plan)}")

    return on_repeat


def _finish(output: Output, found: Bench, earlier: list[Record], share: float | None) -> None:
    from txlplan.config import to_plain

    if not found.stopped and not any(row.repeats for row in found.rows) and not earlier:
        first = found.rows[0]
        raise RunFailedError(f"every case failed; the first: {first.message}", hint=f"txlplan records list --parent {found.id}")
    compared = _compared(found, earlier)
    slower = [change for change in compared if share is not None and change.slower_by(share)]
    rows = [{**to_plain(row), "tokens_error": row.tokens_error, "memory_error": row.memory_error} for row in found.rows]
    document = {"id": found.id, "matrix": to_plain(found.matrix), "rows": rows, "notes": list(found.notes)}
    document |= {"against": to_plain(compared), "slower": len(slower), "stopped": found.stopped}
    output.document(document, lambda console: _print(console, found, compared))
    if found.stopped:
        output.next_step(f"txlplan bench --resume {found.id}")
        raise Stopped
    if slower:
        output.say(f"failed: {len(slower)} of {len(compared)} cases are slower than before by more than {share:.1%}")
        raise typer.Exit(BarMissedError.exit_code)
    again = any(row.failed for row in found.rows)
    output.next_step(f"txlplan bench --resume {found.id}" if again else "txlplan validate store")


def _compared(found: Bench, earlier: list[Record]) -> tuple[Change, ...]:
    """The change of each case since `earlier`; nothing where there is nothing to compare with."""
    from txlplan.benchmarks import changes
    from txlplan.records import open_store

    if not earlier or found.stopped:
        return ()
    return changes([row.case for row in found.rows], open_store().list(kind="bench", parent=found.id), earlier)


def _print(console: Console, found: Bench, compared: tuple[Change, ...]) -> None:
    from rich.table import Table

    from txlplan.launcher import describe

    table = Table(
        "model", "plan", "repeats", "tokens/s", "± MAD", "predicted", "error", "peak memory", "predicted", "error", box=None
    )
    for row in found.rows:
        repeats = f"{row.repeats}" + (f" ({row.failed} {row.outcome})" if row.failed else "")
        table.add_row(row.model, describe(row.case.plan), repeats, *_speed(row), *_memory(row))
    console.print(table)
    for change in compared:
        text = f"since then, {change.case.model.id}, {describe(change.case.plan)}: {_changed(change)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for note in dict.fromkeys([*found.notes, *(note for change in compared for note in change.notes)]):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _changed(change: Change) -> str:
    """`throughput −7.1 % (95 % interval −8.0 % to −6.2 %; 3 repeats then, 3 now)`."""
    if change.change is None or change.low is None or change.high is None:
        return f"failed (it ran {change.repeats_before} times before)"
    interval = f"95 % interval {_percent(change.low)} to {_percent(change.high)}"
    return f"throughput {_percent(change.change)} ({interval}; {change.repeats_before} repeats then, {change.repeats_now} now)"


def _speed(row: Row) -> tuple[str, str, str, str]:
    speed = row.tokens_per_s
    several = speed is not None and bool(speed.median) and row.repeats - row.failed > 1
    mad = f"{speed.mad / speed.median:.1%}" if speed is not None and several else ""
    return _count(speed), mad, _number(row.predicted_tokens_per_s), _percent(row.tokens_error)


def _memory(row: Row) -> tuple[str, str, str]:
    from txlplan.units import format_bytes

    measured = row.peak_memory_bytes.median if row.peak_memory_bytes else None
    return format_bytes(measured), format_bytes(row.predicted_peak_memory_bytes), _percent(row.memory_error)


def _count(spread: Spread_ | None) -> str:
    return _number(spread.median if spread else None)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+z.1%}"
