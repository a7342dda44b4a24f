"""Score the predictions of many records, overall and by group."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from txlplan.records import Record
from txlplan.validation._again import score_again
from txlplan.validation._errors import Errors, errors
from txlplan.validation._rows import Row, Unscored, score

GROUPINGS = ("device", "model", "precision", "task", "n_devices", "stack")


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
    """Grouping (`GROUPINGS`) → value → summary, values sorted."""
    mean_of_groups: float | None
    """Mean absolute error of tokens/s, averaged within each (device, stack, task), then over those; None: nothing measured."""
    wrong_fits: tuple[str, ...]
    """Ids of rows that fitted in memory and should not have, or the other way round."""


def validate(records: Iterable[Record], *, again: bool = False) -> Validation:
    """Score records against the estimates that were stored before they ran, or (`again`) against estimates made now."""
    return summarise([(score_again if again else score)(record) for record in records])


def summarise(scores: Sequence[Row | Unscored]) -> Validation:
    """Statistics of rows that are scored already; those that could not be are listed."""
    rows = tuple(item for item in scores if isinstance(item, Row))
    return Validation(
        rows=rows,
        unscored=tuple(item for item in scores if isinstance(item, Unscored)),
        overall=_summary(rows),
        groups={grouping: _grouped(rows, grouping) for grouping in GROUPINGS},
        mean_of_groups=_mean_of_groups(rows),
        wrong_fits=tuple(row.id for row in rows if row.fits_predicted != row.fits_measured),
    )


def _mean_of_groups(rows: Sequence[Row]) -> float | None:
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if (error := row.tokens_per_s.relative_error) is not None:
            groups.setdefault((row.device, row.stack, row.task), []).append(abs(error))
    return statistics.fmean(statistics.fmean(absolute) for absolute in groups.values()) if groups else None


def _grouped(rows: Sequence[Row], grouping: str) -> dict[str, Summary]:
    values = sorted({getattr(row, grouping) for row in rows})
    return {str(value): _summary([row for row in rows if getattr(row, grouping) == value]) for value in values}


def _summary(rows: Iterable[Row]) -> Summary:
    kept = list(rows)
    return Summary(
        tokens_per_s=errors(row.tokens_per_s for row in kept),
        peak_memory_bytes=errors(row.peak_memory_bytes for row in kept),
    )
