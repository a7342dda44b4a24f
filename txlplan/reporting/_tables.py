"""The tables of a report: text cells under a caption, and what each is computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from txlplan.estimates import Estimate, Range
from txlplan.records import Record
from txlplan.reporting._format import Formatter, percent, plan_text, span, yes_no
from txlplan.units import format_bytes, format_j, format_rate, format_s

Quantity = Literal["tokens_per_s", "peak_memory_bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text under a caption."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    """So many columns on the left are text; the others are numbers and stand right."""


def labels(records: Sequence[Record]) -> list[str]:
    """A short name for each record, numbered among its like, oldest first: `Run`, `Trial 1`, `Trial 2`, `Score`."""
    names = [_kind_name(record) for record in records]
    numbered = Counter(names)
    seen: Counter[str] = Counter()
    found = [""] * len(records)
    for index in sorted(range(len(records)), key=lambda index: (records[index].created_at, records[index].id)):
        name = names[index]
        seen[name] += 1
        alone = numbered[name] == 1 and records[index].kind == "run"
        found[index] = name if alone else f"{name} {seen[name]}"
    return found


def _kind_name(record: Record) -> str:
    if record.kind == "run":
        return {"train": "Run", "score": "Score", "generate": "Generate"}[record.workload.task]
    return {"trial": "Trial", "bench": "Repeat"}[record.kind]


def comparison_table(record: Record) -> Table:
    """Each predicted quantity of one record beside its measurement."""
    estimate = record.estimate
    steady = sorted(record.steady_steps())
    median_step_s = steady[len(steady) // 2] if steady else None
    energy = record.energy_j / len(record.step_s) if record.energy_j is not None and record.step_s else None
    entries: list[tuple[str, Range | None, float | None, Formatter]] = [
        (
            "throughput",
            estimate.tokens_per_s if estimate else None,
            record.tokens_per_s,
            lambda value: format_rate(value, "tokens"),
        ),
        ("step time (median)", estimate.step_s if estimate else None, median_step_s, format_s),
        ("peak memory", estimate.peak_memory_bytes if estimate else None, record.peak_memory_bytes, format_bytes),
        ("energy per step", estimate.energy_j_per_step if estimate else None, energy, format_j),
    ]
    return Table(
        caption="Predicted before the run, and measured in it",
        columns=("quantity", "predicted", "80 % range", "measured", "error of prediction", "in range"),
        rows=tuple((name, *_compared(predicted, measured, write)) for name, predicted, measured, write in entries),
    )


def quantity_table(records: Sequence[Record], quantity: Quantity, caption: str) -> Table:
    """One quantity of every record: what its chart shows, in numbers."""
    write: Formatter = format_bytes if quantity == "peak_memory_bytes" else lambda value: format_rate(value, "tokens")
    rows = []
    for label, record in zip(labels(records), records, strict=True):
        predicted = getattr(record.estimate, quantity) if record.estimate else None
        rows.append((label, plan_text(record.plan), *_compared(predicted, getattr(record, quantity), write)))
    columns = ("record", "plan", "predicted", "80 % range", "measured", "error of prediction", "in range")
    return Table(caption=caption, columns=columns, rows=tuple(rows), text_columns=2)


def trials_table(records: Sequence[Record]) -> Table:
    """Every record: plan, outcome and what it reached, the fastest first."""
    named = sorted(zip(labels(records), records, strict=True), key=lambda pair: -(pair[1].tokens_per_s or 0.0))
    several = len({record.workload.model.id for record in records}) > 1
    rows = tuple(
        (
            label,
            *((record.workload.model.id,) if several else ()),
            plan_text(record.plan),
            f"{record.outcome}: {record.message}" if record.message else record.outcome,
            str(len(record.step_s)),
            format_rate(record.tokens_per_s, "tokens"),
            format_bytes(record.peak_memory_bytes),
            record.id,
        )
        for label, record in named
    )
    names = ("record", *(("model",) if several else ()), "plan", "outcome")
    columns = (*names, "steps", "throughput", "peak memory", "id")
    return Table(caption="Every record of this report, fastest first", columns=columns, rows=rows, text_columns=len(names))


def terms_table(estimate: Estimate | None, quantity: Literal["time", "memory"]) -> Table:
    """The terms of an estimate, largest first."""
    terms = estimate.part(quantity) if estimate else ()
    total = sum(term.value for term in terms)
    write: Formatter = format_s if quantity == "time" else format_bytes
    rows = []
    for term in terms:
        bound = (term.bound or "nothing",) if quantity == "time" else ()
        figures = (write(term.value), percent(term.value / total if total else None))
        rows.append((term.name, term.formula, *bound, term.provenance, *figures))
    if quantity == "time":
        columns: tuple[str, ...] = ("term", "formula", "bound by", "provenance", "time", "share")
        caption = "Predicted time of one step, by term"
    else:
        columns, caption = ("term", "formula", "provenance", "memory", "share"), "Predicted peak memory, by term"
    return Table(caption=caption, columns=columns, rows=tuple(rows), text_columns=len(columns) - 2)


def _compared(predicted: Range | None, measured: float | None, write: Formatter) -> tuple[str, str, str, str, str]:
    both = predicted is not None and measured is not None and measured != 0
    error = predicted.value / measured - 1 if predicted and measured and both else None
    inside = measured in predicted if predicted and measured is not None else None
    value = predicted.value if predicted else None
    return write(value), span(predicted, write), write(measured), percent(error, signed=True), yes_no(inside)
