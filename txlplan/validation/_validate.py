"""Score the predictions of many records, overall and by group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from txlplan.records import Record
from txlplan.validation._errors import Errors, errors
from txlplan.validation._rows import Row, Unscored, score

GROUPINGS = ("device", "model", "precision", "task")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Errors of both quantities over some rows."""

    tokens_per_s: Errors
    peak_memory_bytes: Errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """Every record scored, and how good the predictions were."""

    rows: tuple[Row, ...]
    unscored: tuple[Unscored, ...]
    overall: Summary
    groups: Mapping[str, Mapping[str, Summary]]
    """Grouping (device, model, precision, task) → value → summary, values sorted."""


def validate(records: Iterable[Record]) -> Validation:
    """Score records against the estimates that were stored before they ran."""
    scores = [score(record) for record in records]
    rows = tuple(item for item in scores if isinstance(item, Row))
    return Validation(
        rows=rows,
        unscored=tuple(item for item in scores if isinstance(item, Unscored)),
        overall=_summary(rows),
        groups={grouping: _grouped(rows, grouping) for grouping in GROUPINGS},
    )


def _grouped(rows: Sequence[Row], grouping: str) -> dict[str, Summary]:
    values = sorted({getattr(row, grouping) for row in rows})
    return {value: _summary([row for row in rows if getattr(row, grouping) == value]) for value in values}


def _summary(rows: Iterable[Row]) -> Summary:
    kept = list(rows)
    return Summary(
        tokens_per_s=errors(row.tokens_per_s for row in kept),
        peak_memory_bytes=errors(row.peak_memory_bytes for row in kept),
    )
