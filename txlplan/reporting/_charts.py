"""The charts of a report, as plotly figures in plain values, each with the table that says the same.

Colours are names of CSS custom properties (`var(--measured)`): the page fills them in, and again when its theme changes.
"""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from txlplan.estimates import Estimate
from txlplan.records import Record
from txlplan.reporting._format import number
from txlplan.reporting._tables import Quantity, Table, labels, quantity_table, terms_table
from txlplan.units import format_bytes, format_rate, format_s

Figure = dict[str, Any]
_POINTS = 400
_TABLE_ROWS = 20
_ROW_PX = 42
_BOUND_COLOURS = {"compute": "var(--compute)", "bandwidth": "var(--bandwidth)", "host": "var(--host)", "link": "var(--link)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A figure, what it shows in words, and its data."""

    id: str
    title: str
    description: str
    figure: Figure
    table: Table
    folded: bool = False
    """The table starts closed: it is long."""


def throughput_chart(records: Sequence[Record]) -> Chart | None:
    """Predicted throughput with its range beside the measured one, a line for each record. None where nothing is known."""
    if not any(record.estimate or record.tokens_per_s is not None for record in records):
        return None
    return Chart(
        id="throughput",
        title="Throughput",
        description="Tokens per second of every record: predicted with its 80 % range, and measured.",
        figure=_intervals(records, "tokens_per_s", 1.0, "tokens/s"),
        table=quantity_table(records, "tokens_per_s", "Throughput, predicted and measured"),
    )


def memory_chart(records: Sequence[Record]) -> Chart | None:
    """Predicted peak memory with its range beside the measured one, a line for each record. None where nothing is known."""
    if not any(record.estimate or record.peak_memory_bytes is not None for record in records):
        return None
    largest = max((record.peak_memory_bytes or _predicted(record, "peak_memory_bytes") or 0 for record in records), default=0)
    scale, unit = _memory_unit(largest)
    capacities = {record.estimate.capacity_bytes for record in records if record.estimate}
    limit = f" A plan may use {format_bytes(capacities.pop())} of a device." if len(capacities) == 1 else ""
    return Chart(
        id="memory",
        title="Peak memory",
        description=f"Peak memory of every record on its fullest device: predicted with its 80 % range, and measured.{limit}",
        figure=_intervals(records, "peak_memory_bytes", scale, unit),
        table=quantity_table(records, "peak_memory_bytes", "Peak memory, predicted and measured"),
    )


def speed_chart(record: Record) -> Chart | None:
    """Throughput step by step, the predicted range behind it. None where no step was timed."""
    if not record.step_s or not record.tokens_per_step:
        return None
    speeds = [record.tokens_per_step / step_s for step_s in record.step_s if step_s > 0]
    points = _binned(speeds, _POINTS)
    trace = {
        "type": "scatter", "mode": "lines", "name": "measured", "x": [(first + last) / 2 for first, last, _ in points],
        "y": [speed for *_, speed in points], "line": {"color": "var(--measured)", "width": 1.5},
        "hovertemplate": "step %{x:.0f}: %{y:,.0f} tokens/s<extra></extra>",
    }  # fmt: skip
    layout = base_layout("step", "tokens/s", shapes=_backdrop(record))
    layout["yaxis"] |= {"tickformat": ",~r"}
    layout["xaxis"] |= {"range": [0.5, len(speeds) + 0.5]}
    rows = tuple(
        (
            f"{first} to {last}" if first != last else str(first),
            _part(first, last, record.warmup_steps),
            format_rate(speed, "tokens"),
        )
        for first, last, speed in _binned(speeds, _TABLE_ROWS)
    )
    return Chart(
        id="speed",
        title="Throughput through the run",
        description="Tokens per second of each step (the warm-up shaded), with the predicted throughput and its 80 % range.",
        figure={"data": [*_predicted_line(record, len(speeds)), trace], "layout": layout},
        table=Table(caption="Median throughput over steps", columns=("steps", "part", "throughput"), rows=rows, text_columns=2),
        folded=True,
    )


def loss_chart(record: Record) -> Chart | None:
    """The loss curve of each split. None where there is none."""
    if not record.losses:
        return None
    splits = sorted({point.split for point in record.losses}, key=lambda split: (split != "train", split))
    colours = dict(
        zip(splits, ("var(--measured)", "var(--predicted)", "var(--host)", "var(--link)") * len(splits), strict=False)
    )
    traces = []
    for split in splits:
        points = [point for point in record.losses if point.split == split]
        mode = "lines" if len(points) > 30 else "lines+markers"
        traces.append({
            "type": "scatter", "mode": mode, "name": html.escape(split), "x": [point.step for point in points],
            "y": [point.loss for point in points], "line": {"color": colours[split], "width": 2},
            "hovertemplate": "step %{x}: %{y:.3f} nats per token<extra></extra>",
        })  # fmt: skip
    shown = _thinned(sorted(record.losses, key=lambda point: (point.step, point.split)), _TABLE_ROWS)
    rows = tuple((str(point.step), point.split, number(point.loss)) for point in shown)
    return Chart(
        id="loss",
        title="Loss",
        description="Mean loss in nats per token over optimizer steps, by split.",
        figure={"data": traces, "layout": base_layout("step", "nats per token")},
        table=Table(caption="Loss in nats per token", columns=("step", "split", "loss"), rows=rows, text_columns=2),
        folded=True,
    )


def terms_chart(estimate: Estimate | None, quantity: Literal["time", "memory"]) -> Chart | None:
    """Where the predicted time or memory goes, the largest term first. None without an estimate."""
    terms = estimate.part(quantity)[:_TABLE_ROWS] if estimate else ()
    if not terms:
        return None
    time = quantity == "time"
    scale, unit = (1e-3, "ms") if time else _memory_unit(sum(term.value for term in terms))
    write = format_s if time else format_bytes
    trace = {
        "type": "bar", "orientation": "h", "y": [html.escape(term.name) for term in terms],
        "x": [term.value / scale for term in terms], "text": [write(term.value) for term in terms],
        "textposition": "auto", "insidetextanchor": "end", "hovertemplate": "%{y}: %{text}<extra></extra>", "showlegend": False,
        "marker": {"color": [_BOUND_COLOURS.get(term.bound or "", "var(--predicted)") for term in terms]},
    }  # fmt: skip
    legend = [_legend_entry(bound) for bound in _BOUND_COLOURS if any(term.bound == bound for term in terms)]
    layout = base_layout(f"{unit} per step" if time else unit, "", height=_ROW_PX * len(terms) + 110)
    layout["yaxis"] |= {"autorange": "reversed"}
    return Chart(
        id=f"{quantity}-terms",
        title="Where the time goes" if time else "Where the memory goes",
        description=f"Terms of the predicted {'step time, by what bounds them' if time else 'peak memory'}, largest first.",
        figure={"data": [trace, *legend], "layout": layout},
        table=terms_table(estimate, quantity),
    )


def _intervals(records: Sequence[Record], quantity: Quantity, scale: float, unit: str) -> Figure:
    names = labels(records)
    known = [(name, getattr(record.estimate, quantity)) for name, record in zip(names, records, strict=True) if record.estimate]
    measured = [
        (name, value) for name, record in zip(names, records, strict=True) if (value := getattr(record, quantity)) is not None
    ]
    predicted_trace = {
        "type": "scatter", "mode": "markers", "name": "predicted, 80 % range",
        "y": [name for name, _ in known], "x": [span.value / scale for _, span in known],
        "error_x": {
            "type": "data", "symmetric": False, "color": "var(--predicted)", "thickness": 6, "width": 0,
            "array": [(span.high - span.value) / scale for _, span in known],
            "arrayminus": [(span.value - span.low) / scale for _, span in known],
        },
        "marker": {"color": "var(--surface)", "size": 11, "line": {"color": "var(--predicted)", "width": 3}},
        "hovertemplate": f"%{{y}}: predicted %{{x:,.4~r}} {unit}<extra></extra>",
    }  # fmt: skip
    measured_trace = {
        "type": "scatter", "mode": "markers", "name": "measured",
        "y": [name for name, _ in measured], "x": [value / scale for _, value in measured],
        "marker": {"color": "var(--measured)", "size": 13, "symbol": "diamond"},
        "hovertemplate": f"%{{y}}: measured %{{x:,.4~r}} {unit}<extra></extra>",
    }  # fmt: skip
    layout = base_layout(unit, "", height=_ROW_PX * len(records) + 130)
    layout["xaxis"] |= {"rangemode": "tozero"}
    layout["yaxis"] |= {"autorange": "reversed", "categoryorder": "array", "categoryarray": names}
    return {"data": [predicted_trace, measured_trace], "layout": layout}


def base_layout(x: str, y: str, *, height: int = 320, **more: Any) -> Figure:
    """What all charts share; the page adds fonts and colours."""
    return {
        "height": height, "margin": {"l": 16, "r": 16, "t": 16, "b": 56},
        "hovermode": "closest", "dragmode": False, "bargap": 0.3,
        "xaxis": {"title": {"text": x, "font": {"size": 13}}, "zeroline": False, "tickformat": ",~r"},
        "yaxis": {"title": {"text": y, "font": {"size": 13}, "standoff": 12}, "zeroline": False, "automargin": True},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}, **more,
    }  # fmt: skip


def _legend_entry(bound: str) -> Figure:
    """A bar that is not there, for the legend's sake."""
    return {"type": "bar", "orientation": "h", "x": [None], "y": [None], "name": f"bound by {bound}",
            "marker": {"color": _BOUND_COLOURS[bound]}, "hoverinfo": "skip"}  # fmt: skip


def _part(first: int, last: int, warmup_steps: int) -> str:
    return "warm-up" if last <= warmup_steps else "in part warm-up" if first <= warmup_steps else "steady"


def _predicted_line(record: Record, steps: int) -> list[Figure]:
    """The predicted throughput, across the chart."""
    if record.estimate is None:
        return []
    value = record.estimate.tokens_per_s.value
    return [{"type": "scatter", "mode": "lines", "name": "predicted, 80 % range", "x": [0.5, steps + 0.5], "y": [value, value],
             "line": {"color": "var(--predicted)", "width": 2}, "hoverinfo": "skip"}]  # fmt: skip


def _backdrop(record: Record) -> list[Figure]:
    """Behind the curve: the range of the prediction, and the warm-up."""
    plain = {"type": "rect", "layer": "below", "line": {"width": 0}}
    shapes: list[Figure] = []
    if record.estimate:
        interval = record.estimate.tokens_per_s
        across = {"xref": "paper", "x0": 0, "x1": 1, "y0": interval.low, "y1": interval.high}
        shapes.append({"fillcolor": "var(--band)", **across, **plain})
    if record.warmup_steps:
        over = {"yref": "paper", "y0": 0, "y1": 1, "x0": 0.5, "x1": record.warmup_steps + 0.5}
        shapes.append({"fillcolor": "var(--rule)", **over, **plain})
    return shapes


def _binned(values: Sequence[float], count: int) -> list[tuple[int, int, float]]:
    """At most `count` runs of consecutive values: (first, last, median), counted from 1."""
    width = -(-len(values) // count)
    starts = range(0, len(values), max(width, 1))
    pieces = [(start, values[start : start + width]) for start in starts]
    return [(start + 1, start + len(piece), statistics.median(piece)) for start, piece in pieces]


def _thinned(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of `items`, evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def _predicted(record: Record, quantity: Quantity) -> float | None:
    return getattr(record.estimate, quantity).value if record.estimate else None


def _memory_unit(largest_bytes: float) -> tuple[float, str]:
    return (2.0**30, "GiB") if largest_bytes >= 2**30 else (2.0**20, "MiB")
