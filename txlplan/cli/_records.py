"""`txlplan records list|show|export|import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from txlplan.choices import Outcome, RecordKind, Task
from txlplan.cli._output import JsonOption, Output
from txlplan.errors import InputError
from txlplan.units import counted

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.records import Record

app = typer.Typer(help="What runs did take: list, show, export and import records.", no_args_is_help=True)

OutcomeOption = Annotated[Outcome | None, typer.Option(help="Only records that ended so.")]
KindOption = Annotated[RecordKind | None, typer.Option(help="Only runs, trials or benchmark repeats.")]
TaskOption = Annotated[Task | None, typer.Option(help="Only this task.")]
ModelOption = Annotated[str | None, typer.Option(help="Only this model id.")]
ParentOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Only the trials of this run, or the repeats of this benchmark.")
]
DeviceOption = Annotated[str | None, typer.Option(help="Only this device id.")]
_LISTED = 20


def register(root: typer.Typer) -> None:
    """Add the commands to the application."""
    root.add_typer(app, name="records")


@app.command("list")
def list_records(
    outcome: OutcomeOption = None,
    kind: KindOption = None,
    task: TaskOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    parent: ParentOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = _LISTED,
    as_json: JsonOption = False,
) -> None:
    """List records, newest first, with what was predicted and what was measured.

    Example: txlplan records list --outcome ok --kind run
    """
    from txlplan.records import flat, open_store

    output = Output(as_json)
    store = open_store()
    _close_interrupted(output, store)
    found = store.list(outcome=outcome, kind=kind, parent=parent, task=task, model=model, device=device, limit=limit)
    output.document([flat(record) for record in found], lambda console: _print_list(console, found))
    if not found:
        output.say(f"no such record in {store.url}")
    elif len(found) == limit:
        output.say(f"the newest {limit}; --limit shows more")
    output.next_step(f"txlplan records show {found[0].id}" if found else "txlplan demo")


@app.command()
def show(
    record: Annotated[str, typer.Argument(metavar="ID", help="A record's id, or the beginning of one.")],
    as_json: JsonOption = False,
) -> None:
    """Show one record whole: what ran, where, what was predicted and what was measured.

    Example: txlplan records show 20250304T0930
    """
    from txlplan.records import open_store, to_document

    output = Output(as_json)
    found = open_store().get(record)
    output.document(to_document(found), lambda console: _print_record(console, found))
    output.next_step(f"txlplan report {found.id}")


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="FILE.jsonl (complete) or FILE.csv (a spreadsheet, complete in its last column).")
    ],
    outcome: OutcomeOption = None,
    kind: KindOption = None,
    task: TaskOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write records to a file that `txlplan records import` reads back without loss.

    Example: txlplan records export runs.jsonl --kind run
    """
    from txlplan.records import export_csv, export_jsonl, open_store

    output = Output(as_json)
    write = export_csv if _format(file) == "csv" else export_jsonl
    found = open_store().list(outcome=outcome, kind=kind, task=task, model=model, device=device)
    try:
        count = write(reversed(found), file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}") from None
    output.document(
        {"file": str(file), "records": count}, lambda console: _line(console, f"{file}: {counted(count, 'record')}")
    )
    output.next_step(f"txlplan records import {file}")


@app.command("import")
def import_records(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file that `txlplan records export` wrote.")],
    skip_corrupt: Annotated[bool, typer.Option("--skip-corrupt", help="Import the lines that can be read.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add the records of a file to the store; a record with an id that is there already replaces it.

    Nothing is imported where a line is corrupt, unless --skip-corrupt is given.

    Example: txlplan records import runs.jsonl
    """
    from txlplan.records import import_csv, import_jsonl, open_store

    output = Output(as_json)
    read = import_csv if _format(file) == "csv" else import_jsonl
    skipped: list[str] = []
    found = read(file, on_corrupt=skipped.append if skip_corrupt else None)
    for problem in skipped:
        output.say(f"skipped {problem}")
    store = open_store()
    store.put_all(found)
    summary = {"file": str(file), "imported": len(found), "skipped": len(skipped), "store": store.url}
    output.document(summary, lambda console: _line(console, f"{counted(len(found), 'record')} imported into {store.url}"))
    output.next_step("txlplan records list")


def _format(file: Path) -> Literal["jsonl", "csv"]:
    suffix = file.suffix.lower()
    if suffix not in (".jsonl", ".csv"):
        raise InputError(f"{file}: {suffix or 'no suffix'!r} tells no format", hint="name it FILE.jsonl or FILE.csv")
    return "csv" if suffix == ".csv" else "jsonl"


def _close_interrupted(output: Output, store: Any) -> None:
    for record in store.close_interrupted():
        output.say(f"record {record.id} was running and its process is gone: marked failed (interrupted)")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _print_list(console: Console, found: list[Record]) -> None:
    from rich.table import Table
    from rich.text import Text

    from txlplan.units import format_bytes, format_count

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "kind", "outcome", "task", "model", "device", "batch"):
        table.add_column(name, no_wrap=name == "id")
    for name in ("tokens/s", "predicted", "peak memory", "predicted"):
        table.add_column(name, justify="right")
    for record in found:
        estimate = record.estimate
        cells = (
            record.id, record.kind, record.outcome, record.workload.task, record.workload.model.id, record.device.id,
            str(record.plan.global_batch), format_count(record.tokens_per_s),
            format_count(estimate.tokens_per_s.value if estimate else None), format_bytes(record.peak_memory_bytes),
            format_bytes(estimate.peak_memory_bytes.value if estimate else None),
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _print_record(console: Console, record: Record) -> None:
    from rich.table import Table
    from rich.text import Text

    from txlplan.reporting import facts

    for heading, rows in facts(record).items():
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(Text(name), Text(value))
        console.print(Text(heading, style="bold"))
        console.print(table)
        console.print()
