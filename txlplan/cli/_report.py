"""`txlplan report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.errors import InputError, RecordError
from txlplan.units import counted

if TYPE_CHECKING:
    from txlplan.records import Record, Store

_Format = Literal["html", "md", "csv", "json"]
_FORMATS: dict[str, _Format] = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(report)


def report(
    records: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORD_ID", help="Records (or beginnings of their ids), each with its trials."),
    ] = None,
    output_file: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
    format_: Annotated[
        _Format | None, typer.Option("--format", help="What to write; by default what the output's name says, else html.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="The report's title.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a report that sets what was predicted beside what was measured: by default on the newest training run
    and its trials, and on what was scored and generated with its weights since.

    The HTML file is complete in itself and opens anywhere, offline.

    Example: txlplan report -o report.html
    """
    from txlplan.records import open_store
    from txlplan.reporting import build, write_report

    output = Output(as_json)
    written_as = format_ or _format(output_file)
    path = output_file or Path(f"report.{written_as}")
    store = open_store()
    store.close_interrupted()
    chosen = _named(store, records) if records else _newest(store)
    write_report(chosen, path, format=written_as, title=title)
    sentence = build(chosen, title).verdict.sentence
    others = len(store.groups() - {record.group for record in chosen})
    summary = {
        "report": str(path),
        "format": written_as,
        "verdict": sentence,
        "covers": ", ".join(records) if records else _covers(chosen[0]),
        "records": [record.id for record in chosen],
        "other_groups": others,
    }
    output.document(summary, lambda console: _print(console, summary))
    if others and not records:
        choose = "`txlplan report RECORD_ID …` is on those that it names, and `txlplan records list` shows them"
        each = "each a run, a part of a resumed one, or a benchmark"
        output.say(f"note: the store holds {counted(others, 'other group')}, {each}: {choose}")
    output.next_step("txlplan validate store")


def _format(output_file: Path | None) -> _Format:
    if output_file is None:
        return "html"
    if output_file.suffix.lower() not in _FORMATS:
        raise InputError(f"{output_file}: {output_file.suffix or 'no suffix'!r} tells no format", hint="give --format")
    return _FORMATS[output_file.suffix.lower()]


def _newest(store: Store) -> list[Record]:
    """The newest training run, its trials, and what was scored and generated with its weights since.

    Without a training run, the newest record and those that share its parent.
    """
    run = next((run for run in store.list(kind="run", task="train") if run.has_result), None)
    if run is not None:
        runs = store.list(kind="run", model=run.workload.model.id)
        since = (later for later in runs if later.created_at > run.created_at and later.may_use_weights_of(run))
        return [run, *store.list(parent=run.id), *since]
    if newest := store.list(limit=1):
        record = newest[0]
        return [record, *(other for other in store.list(parent=record.parent or record.id) if other.id != record.id)]
    raise RecordError(f"no records in {store.url}", hint="`txlplan demo` makes some, and so does `txlplan run plan.toml`")


def _covers(newest: Record) -> str:
    """What `_newest` chose, in words."""
    if newest.kind != "run":
        return f"the newest {'benchmark' if newest.kind == 'bench' else 'trials'}, {newest.group}"
    if newest.workload.task == "train" and newest.has_result:
        return f"the newest training run, {newest.id}, its trials, and what was scored and generated with its weights since"
    return f"the newest run, {newest.id}, and its trials"


def _named(store: Store, names: list[str]) -> list[Record]:
    """Each named record with its trials; the name of a benchmark gives all its repeats."""
    found: dict[str, Record] = {}
    for name in names:
        try:
            record = store.get(name)
        except RecordError:
            family = store.list(parent=name)
            if not family:
                raise
        else:
            family = [record, *store.list(parent=record.id)]
        found |= {record.id: record for record in family}
    return list(found.values())


def _print(console: Any, summary: dict[str, Any]) -> None:
    console.print(summary["verdict"], markup=False, highlight=False)
    told = f"{counted(len(summary['records']), 'record')} ({summary['covers']})"
    console.print(f"{summary['report']}: {told}", markup=False, highlight=False)
