"""A comparison as HTML, Markdown, CSV, JSON, or a short piece of HTML for a notebook."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from txlplan.estimates import Range
from txlplan.planner import Comparison, Row, Size, Verdict, describe, outlay
from txlplan.records import Record, csv_text
from txlplan.reporting import _comparison_tables as tables
from txlplan.reporting import _render
from txlplan.reporting._charts import Chart
from txlplan.reporting._comparison_charts import charts
from txlplan.reporting._comparison_data import comparison_document, comparison_tables
from txlplan.reporting._format import span
from txlplan.reporting._tables import Table
from txlplan.reporting._write import Format, write_text
from txlplan.units import format_j, format_s, format_usd

_COLUMNS = ("candidate", "paid for by", "plan", "time", "cost", "energy", "throughput", "devices", "on the front")
_TEXT_COLUMNS = 3
_DONE = {"train": "training", "score": "scoring", "generate": "generating"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What a cell shows, and the key that it is sorted by: a number in base units, text, or nothing where it is unknown."""

    text: str
    key: str
    note: str = ""
    """What stands below it: the range of a figure, the outlay of a purchase."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of the table of candidates."""

    cells: tuple[Cell, ...]
    on_front: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a template shows of a comparison."""

    title: str
    verdict: Verdict
    basis: str
    made_on: str
    warnings: tuple[str, ...]
    columns: tuple[str, ...]
    text_columns: int
    candidates: tuple[Line, ...]
    charts: tuple[Chart, ...]
    sections: tuple[tuple[str, Table], ...]
    """What is left to show, under headings."""


def write_comparison(comparison: Comparison, path: Path, *, format: Format = "html", records: Sequence[Record] = ()) -> Path:  # noqa: A002
    """Write a comparison to `path`, atomically, and give the path back.

    `html` is one self-contained offline file, `md` the same in tables, `csv` every table in one, told apart by its
    first column, `json` everything.

    `records` are measurements that are set beside their predictions. Raises ConfigError for a template that is
    wrong, InputError where `path` cannot be written.
    """
    writers: dict[str, Callable[[], str]] = {
        "html": lambda: _render.filled("compare.html.j2", {"page": page(comparison, records), "plotly": _render.plotly()}),
        "md": lambda: _render.filled("compare.md.j2", {"page": page(comparison, records)}),
        "csv": lambda: csv_text(comparison_tables(comparison, records)),
        "json": lambda: (
            json.dumps(comparison_document(comparison, records), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
        ),
    }
    return write_text(path, writers[format]())


def page(comparison: Comparison, records: Sequence[Record] = ()) -> Page:
    """Everything that a template needs, in words and figures."""
    workload = comparison.workload
    further = (
        ("What if", tables.sensitivity_table(comparison)),
        ("Plans", tables.plan_table(comparison)),
        ("Prices", tables.price_table(comparison)),
        ("Assumptions", tables.assumption_table(comparison)),
        ("Left out", tables.out_table(comparison)),
    )
    drawn = charts(comparison, records)
    return Page(
        title=f"{workload.model.id}: {_DONE[workload.task]} {workload.tokens:,} tokens",
        verdict=comparison.verdict,
        basis=_basis(comparison),
        made_on=comparison.terms.today.isoformat(),
        warnings=comparison.warnings,
        columns=_COLUMNS,
        text_columns=_TEXT_COLUMNS,
        candidates=tuple(_line(row, size) for row in comparison.ranked for size in row.shown),
        charts=drawn,
        sections=tuple((heading, table) for heading, table in further if table.rows),
    )


def _basis(comparison: Comparison) -> str:
    """How it was ranked, and what was counted."""
    terms = comparison.terms
    ways = {
        "auto": "rented on demand where a price is known, else bought",
        "rent": "rented on demand",
        "spot": "rented as spot nodes, interruptions counted",
        "buy": "bought",
    }
    counted = "start, evaluation, checkpoints and failures" if comparison.workload.task == "train" else "start and failures"
    return (
        f"{len(comparison.rows)} candidates ranked by {terms.rank_by}, {ways[terms.pay]}; {counted} are counted. "
        "Ranges are 80 % intervals; of several sizes, the best by its figures is shown, and the one that is recommended."
    )


def _line(row: Row, size: Size) -> Line:
    assert size.planned is not None
    assert size.account is not None
    account, planned = size.account, size.planned
    plan, on_front = describe(planned.choice.plan), size.on_front
    memory = "the high end of its memory does not fit" if planned.choice.estimate.tight else ""
    cells = (
        Cell(text=size.label, key=size.label, note="recommended" if size is row.smaller else ""),
        Cell(text=tables.PAID[account.way], key=tables.PAID[account.way], note=outlay(account)),
        Cell(text=plan, key=plan, note=memory),
        _figure(account.time_s, format_s),
        _figure(account.cost_usd, format_usd),
        _figure(account.energy_j, format_j, also=tables.uncounted(account)),
        _figure(planned.choice.estimate.tokens_per_s, tables.rate),
        Cell(text=str(planned.n_devices), key=str(planned.n_devices)),
        Cell(text="yes" if on_front else "no", key="yes" if on_front else "no"),
    )
    return Line(cells=cells, on_front=on_front)


def _figure(value: Range | None, write: Callable[[float | None], str], also: str = "") -> Cell:
    if value is None:
        return Cell(text="unknown", key="")
    return Cell(text=write(value.value), key=repr(value.value), note=span(value, write) + also)


def comparison_summary_html(comparison: Comparison) -> str:
    """Verdict and table, for a notebook: no script, no style of its own."""
    shown = page(comparison)
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in shown.columns)
    lines = "".join(f"<tr>{''.join(map(_html_cell, line.cells))}</tr>" for line in shown.candidates)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f"<p><strong>{html.escape(shown.verdict.sentence)}</strong></p>{table}"


def _html_cell(cell: Cell) -> str:
    note = f" ({cell.note})" if cell.note else ""
    return f"<td>{html.escape(cell.text + note)}</td>"
