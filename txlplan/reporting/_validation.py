"""How good predictions were, as one HTML page: parity charts, errors by group, every row."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from txlplan.records import now
from txlplan.reporting import _render
from txlplan.reporting._charts import Chart, Figure, base_layout
from txlplan.reporting._format import Formatter, moment, percent
from txlplan.reporting._tables import Quantity, Table
from txlplan.reporting._write import write_text
from txlplan.units import counted, format_bytes, format_rate
from txlplan.validation import Ranking, Row, Scored, Summary, Validation

_WORST = 10
_TITLES: dict[Quantity, str] = {"tokens_per_s": "Throughput", "peak_memory_bytes": "Peak memory"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What the template shows."""

    title: str
    sentence: str
    details: tuple[str, ...]
    made_at: str
    charts: tuple[Chart, ...]
    sections: tuple[tuple[str, Table], ...]


def write_validation(
    scored: Validation, path: Path, *, title: str, left_out: str | None = None, ranking: Ranking | None = None
) -> Path:
    """Write the page to `path`, atomically, and give the path back; it is one file that loads nothing.

    `left_out` names the groups that were each predicted by a fit to all others; peak memory is not refitted then, and is
    not shown. Raises ConfigError for a template that is wrong, InputError where `path` cannot be written.
    """
    shown = page(scored, title=title, left_out=left_out, ranking=ranking)
    return write_text(path, _render.filled("validation.html.j2", {"page": shown, "plotly": _render.plotly()}))


def page(scored: Validation, *, title: str, left_out: str | None = None, ranking: Ranking | None = None) -> Page:
    """Everything that the template needs, in words and figures."""
    quantities: tuple[Quantity, ...] = ("tokens_per_s",) if left_out else ("tokens_per_s", "peak_memory_bytes")
    charts = [chart for quantity in quantities if (chart := _parity(scored.rows, quantity))]
    sections = [(f"{_TITLES[quantity]}: errors by group", _group_table(scored, quantity)) for quantity in quantities]
    sections.append(("Furthest off", _worst_table(scored.rows, quantities)))
    sections.append(("Not scored", _unscored_table(scored)))
    return Page(
        title=title,
        sentence=_sentence(scored, left_out),
        details=_details(scored, left_out, ranking),
        made_at=moment(now()),
        charts=tuple(charts),
        sections=tuple((heading, table) for heading, table in sections if table.rows),
    )


def _sentence(scored: Validation, left_out: str | None) -> str:
    speed = scored.overall.tokens_per_s
    if speed.mape is None:
        return "Nothing to judge: no row has both a prediction and a measured throughput"
    how = f"with each {left_out} predicted by a fit to all others" if left_out else "as predicted"
    return (
        f"Throughput is off by {percent(speed.mape)} on average over {counted(speed.n, 'row')}, {how}; "
        f"{percent(speed.coverage)} lie in their 80 % range"
    )


def _details(scored: Validation, left_out: str | None, ranking: Ranking | None) -> tuple[str, ...]:
    details = []
    memory = scored.overall.peak_memory_bytes
    if not left_out and memory.mape is not None:
        details.append(f"Peak memory is off by {percent(memory.mape)} on average over {counted(memory.n, 'row')}.")
    if not left_out and scored.rows:
        right = len(scored.rows) - len(scored.wrong_fits)
        details.append(f"Whether it fits in memory was right for {right} of {counted(len(scored.rows), 'row')}.")
    if ranking is not None and ranking.predicted.pairs:
        details.append(
            f"Of {counted(ranking.predicted.pairs, 'pair')} of systems, {percent(ranking.predicted.right)} are in order; "
            f"by peak FLOP/s alone, {percent(ranking.by_peak.right)} would be."
        )
    return tuple(details)


def _writer(quantity: Quantity) -> Formatter:
    return format_bytes if quantity == "peak_memory_bytes" else lambda value: format_rate(value, "tokens")


def _of(row: Row, quantity: Quantity) -> Scored:
    found: Scored = getattr(row, quantity)
    return found


def _parity(rows: Sequence[Row], quantity: Quantity) -> Chart | None:
    """Predicted against measured on logarithmic axes, by whether the range held. None where nothing was measured."""
    measured = [row for row in rows if _of(row, quantity).measured]
    if not measured:
        return None
    scale, unit = (2.0**20, "MiB") if quantity == "peak_memory_bytes" else (1.0, "tokens/s")
    ends = [value for row in measured for value in (_of(row, quantity).predicted, _of(row, quantity).measured or 0.0)]
    line = [min(ends) / scale, max(ends) / scale]
    diagonal = {
        "type": "scatter", "mode": "lines", "name": "as measured", "x": line, "y": line,
        "line": {"color": "var(--rule)", "width": 2}, "hoverinfo": "skip",
    }  # fmt: skip
    within = [row for row in measured if _of(row, quantity).inside]
    beyond = [row for row in measured if not _of(row, quantity).inside]
    layout = base_layout(f"measured {unit}", f"predicted {unit}", height=460)
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"type": "log", "dtick": "D2", "tickformat": "~s"}
    traces = [
        _points(within, quantity, scale, "in the 80 % range", "var(--predicted)"),
        _points(beyond, quantity, scale, "outside it", "var(--measured)"),
    ]
    return Chart(
        id=f"parity-{quantity.replace('_', '-')}",
        title=f"{_TITLES[quantity]}: predicted against measured",
        description=f"{_TITLES[quantity]} of each row, predicted (with its 80 % range) and measured; on the line they agree.",
        figure={"data": [diagonal, *(trace for trace in traces if trace["x"])], "layout": layout},
        table=_row_table(measured, quantity, f"{_TITLES[quantity]}, predicted and measured"),
        folded=True,
    )


def _points(rows: Sequence[Row], quantity: Quantity, scale: float, name: str, colour: str) -> Figure:
    found = [_of(row, quantity) for row in rows]
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [(each.measured or 0.0) / scale for each in found], "y": [each.predicted / scale for each in found],
        "text": [html.escape(_described(row)) for row in rows], "marker": {"color": colour, "size": 8},
        "error_y": {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 0,
            "array": [(each.high - each.predicted) / scale for each in found],
            "arrayminus": [(each.predicted - each.low) / scale for each in found],
        },
        "hovertemplate": "%{text}<br>measured %{x:,.4~r}, predicted %{y:,.4~r}<extra></extra>",
    }  # fmt: skip


def _described(row: Row) -> str:
    several = f"{row.n_devices}x " if row.n_devices > 1 else ""
    return f"{row.id}: {row.model}, {row.task}, {row.precision}, {several}{row.device}"


def _row_table(rows: Sequence[Row], quantity: Quantity, caption: str) -> Table:
    write = _writer(quantity)
    cells = []
    for row in rows:
        found = _of(row, quantity)
        figures = (write(found.predicted), write(found.measured), percent(found.relative_error, signed=True))
        cells.append((*_named(row), *figures, "yes" if found.inside else "no"))
    return Table(
        caption=caption, columns=(*_NAMED, "predicted", "measured", "error", "in range"), rows=tuple(cells), text_columns=6
    )


_NAMED = ("row", "model", "task", "precision", "devices", "stack")


def _named(row: Row) -> tuple[str, ...]:
    return row.id, row.model, row.task, row.precision, f"{row.n_devices}x {row.device}", row.stack


def _group_table(scored: Validation, quantity: Quantity) -> Table:
    named: dict[tuple[str, str], Summary] = {("all", ""): scored.overall}
    named |= {(grouping, value): item for grouping, values in scored.groups.items() for value, item in values.items()}
    rows: list[tuple[str, ...]] = []
    for (grouping, value), summary in named.items():
        found: Any = getattr(summary, quantity)
        if found.n:
            shares = (percent(found.mape), percent(found.median), percent(found.p90), percent(found.bias, signed=True))
            rows.append((grouping.replace("n_devices", "devices"), value, str(found.n), *shares, percent(found.coverage)))
    return Table(
        caption="Relative error of the predictions",
        columns=("group", "", "rows", "mean", "median", "90th percentile", "bias", "in range"),
        rows=tuple(rows),
        text_columns=2,
    )


def _worst_table(rows: Sequence[Row], quantities: Sequence[Quantity]) -> Table:
    """The largest errors of all quantities together."""
    pairs = [(row, quantity) for row in rows for quantity in quantities if _of(row, quantity).relative_error is not None]
    pairs.sort(key=lambda pair: -abs(_of(*pair).relative_error or 0.0))
    cells = []
    for row, quantity in pairs[:_WORST]:
        found, write = _of(row, quantity), _writer(quantity)
        figures = (write(found.predicted), write(found.measured), percent(found.relative_error, signed=True))
        cells.append((*_named(row), _TITLES[quantity].lower(), *figures))
    return Table(
        caption="The largest errors",
        columns=(*_NAMED, "quantity", "predicted", "measured", "error"),
        rows=tuple(cells),
        text_columns=7,
    )


def _unscored_table(scored: Validation) -> Table:
    rows = tuple((item.id, item.reason) for item in scored.unscored)
    return Table(caption="Rows without a prediction or a result, and why", columns=("row", "reason"), rows=rows, text_columns=2)
