"""Records as CSV: flat columns for a spreadsheet, and the whole document in the last one, which alone is read back."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from txlplan import files
from txlplan.errors import RecordError
from txlplan.records._document import from_line, to_line
from txlplan.records._jsonl import Report, collected, content_of
from txlplan.records._record import Record

_DOCUMENT = "document"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def export_csv(records: Iterable[Record], path: Path) -> int:
    """Write records to a file, atomically; gives their number."""
    rows = [flat(record) | {_DOCUMENT: to_line(record)} for record in records]
    files.write_text(path, csv_text(rows) if rows else f"{_DOCUMENT}\n")
    return len(rows)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header of every row's keys and at least one row; None is an empty cell, and no cell is a formula."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def import_csv(path: Path, *, on_corrupt: Report | None = None) -> list[Record]:
    """Read records from the `document` column of a file that `export_csv` wrote; `on_corrupt` as in `import_jsonl`."""
    try:
        text = content_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as CSV UTF-8") from None
    return collected(_documents(text, path), lambda content, where: from_line(content.decode("utf-8"), where), on_corrupt)


def flat(record: Record) -> dict[str, Any]:
    """The columns that a reader of a table wants, in order; numbers in SI units, None where unknown."""
    estimate, model, plan, environment = record.estimate, record.workload.model, record.plan, record.environment
    return {
        "id": record.id,
        "kind": record.kind,
        "parent": record.parent,
        "created_at": record.created_at,
        "finished_at": record.finished_at,
        "outcome": record.outcome,
        "message": record.message,
        "task": record.workload.task,
        "model": model.id,
        "device": record.device.id,
        "n_devices": record.n_devices,
        "system": record.system,
        "stack": record.stack,
        "precision": plan.precision,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "data_parallel": plan.data_parallel,
        "activation_checkpointing": plan.activation_checkpointing,
        "threads": plan.threads,
        "tgt_len": model.tgt_len,
        "mem_len": model.mem_len,
        "steps": len(record.step_s),
        "tokens_per_s": record.tokens_per_s,
        "predicted_tokens_per_s": estimate.tokens_per_s.value if estimate else None,
        "predicted_tokens_per_s_low": estimate.tokens_per_s.low if estimate else None,
        "predicted_tokens_per_s_high": estimate.tokens_per_s.high if estimate else None,
        "peak_memory_bytes": record.peak_memory_bytes,
        "predicted_peak_memory_bytes": estimate.peak_memory_bytes.value if estimate else None,
        "predicted_peak_memory_bytes_low": estimate.peak_memory_bytes.low if estimate else None,
        "predicted_peak_memory_bytes_high": estimate.peak_memory_bytes.high if estimate else None,
        "energy_j": record.energy_j,
        "perplexity": record.perplexity,
        "bits_per_character": record.bits_per_character,
        "torch": environment.torch,
        "hostname": environment.hostname,
        "git_commit": environment.git_commit,
    }


def _cell(value: Any) -> Any:
    """A cell; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def _documents(text: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """Place and content of each row's document."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if _DOCUMENT not in header:
        raise RecordError(
            f"{path}: no column {_DOCUMENT!r}: records are read back from it alone",
            hint="export again with `txlplan records export`, and keep that column",
        )
    column, first_line = header.index(_DOCUMENT), reader.line_num + 1
    for row in reader:
        where, first_line = f"{path}:{first_line}", reader.line_num + 1
        if row:
            yield where, row[column].encode() if column < len(row) else b""
