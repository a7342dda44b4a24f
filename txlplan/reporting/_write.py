"""Write a report to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from txlplan import files
from txlplan.config import to_plain
from txlplan.errors import InputError
from txlplan.records import Record, csv_text, flat, to_document
from txlplan.reporting import _render
from txlplan.reporting._content import Report, build
from txlplan.validation import Row, score

Format = Literal["html", "md", "csv", "json"]


def write_report(records: Sequence[Record], path: Path, *, format: Format = "html", title: str | None = None) -> Path:  # noqa: A002
    """Write a report on `records` to `path`, atomically, and give the path back.

    `html` is one self-contained offline file, `md` the same tables in Markdown, `csv` a row a record, `json` everything.
    Raises RecordError without records, ConfigError for a template that is wrong, InputError where `path` cannot be written.
    """
    if format not in get_args(Format):
        raise InputError(f"unknown report format {format!r}", hint=f"one of {', '.join(get_args(Format))}")
    writers: dict[str, Callable[[Report], str]] = {"html": _render.html, "md": _render.markdown, "csv": _csv, "json": _json}
    return write_text(path, writers[format](build(records, title)))


def write_text(path: Path, text: str) -> Path:
    """Write `path` atomically and give it back. Raises InputError where it cannot be written."""
    files.write_text(path, text)
    return path


def _csv(report: Report) -> str:
    """A row a record: the flat columns of an export, and the errors of the prediction."""
    return csv_text([flat(record) | _errors(record) for record in report.records])


def _errors(record: Record) -> dict[str, float | bool | None]:
    """Relative errors (predicted / measured − 1) and whether the measurement lies in the range; None where unknown."""
    row = score(record)
    found: dict[str, float | bool | None] = {}
    for name in ("tokens_per_s", "peak_memory_bytes"):
        quantity = getattr(row, name) if isinstance(row, Row) else None
        found[f"{name}_relative_error"] = quantity.relative_error if quantity else None
        found[f"{name}_in_range"] = quantity.inside if quantity else None
    return found


def _json(report: Report) -> str:
    document = {
        "title": report.title,
        "made_at": report.made_at,
        "verdict": to_plain(report.verdict),
        "subject": report.subject.id,
        "comparison": [{"id": record.id} | _errors(record) for record in report.records],
        "records": [to_document(record) for record in report.records],
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
