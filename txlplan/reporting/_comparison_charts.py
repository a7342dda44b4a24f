"""The charts of a comparison: front, scaling, break-even, memory, time, and predicted against measured."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from txlplan.estimates import Range
from txlplan.planner import Comparison, Row
from txlplan.records import Record
from txlplan.reporting import _comparison_tables as tables
from txlplan.reporting._charts import Chart, Figure, base_layout, throughput_chart
from txlplan.reporting._format import percent
from txlplan.reporting._placement import sides
from txlplan.units import format_bytes

_SERIES = ("var(--predicted)", "var(--measured)", "var(--bandwidth)", "var(--host)", "var(--link)", "var(--good)", "var(--bad)")
_DASHES = ("solid", "dash", "dot", "dashdot")
_BAR_PX = 40
_LOG_FROM = 20.0
_MEMORY_KINDS = 6
_POINTS = 24


def charts(comparison: Comparison, records: Sequence[Record]) -> tuple[Chart, ...]:
    """Those for which there is something to draw."""
    measured = throughput_chart(records) if records else None
    found = (
        _pareto(comparison), _scaling(comparison), _break_even(comparison), _time(comparison), _memory(comparison), measured,
    )  # fmt: skip
    return tuple(chart for chart in found if chart is not None)


def _pareto(comparison: Comparison) -> Chart | None:
    """Time against cost, with ranges; against energy where no cost is known."""
    rows = [row for row in comparison.ranked if row.account.cost_usd]
    if not rows:
        return None
    scale, unit = _time_unit(max(row.account.time_s.value for row in rows))
    traces = []
    times, costs = [row.account.time_s for row in rows], [row.account.cost_usd for row in rows if row.account.cost_usd]
    figure = base_layout(f"time ({unit})", "cost (USD)", height=420)
    figure["xaxis"] |= _axis(times)
    figure["yaxis"] |= _axis(costs)
    numbers = [str(place) for place, row in enumerate(comparison.ranked, start=1) if row.account.cost_usd]
    log = figure["xaxis"].get("type") == "log", figure["yaxis"].get("type") == "log"
    places = sides(times, costs, numbers, log=log)
    labels = {row.label: label for row, *label in zip(rows, numbers, places, strict=True)}
    for on_front, name in ((True, "on the front"), (False, "dominated")):
        chosen = [row for row in rows if row.on_front is on_front]
        if chosen:
            traces.append(_points(chosen, labels, scale, unit, name, "var(--predicted)" if on_front else "var(--neutral)"))
    unpriced = ", ".join(row.label for row in comparison.ranked if not row.account.cost_usd)
    left = f" Without a price, and so left out: {unpriced}." if unpriced else ""
    return Chart(
        id="pareto",
        title="Time against cost",
        description="Each candidate by its number in the table, with its 80 % ranges; "
        f"no other beats one on the front in time, cost and energy.{left}",
        figure={"data": traces, "layout": figure},
        table=tables.pareto_table(comparison),
    )


def _points(
    rows: Sequence[Row], labels: Mapping[str, Sequence[str]], scale: float, unit: str, name: str, colour: str
) -> Figure:
    """Numbered by their place: names would lie upon each other where candidates are alike. `labels`: number and its side."""
    costs = [row.account.cost_usd for row in rows if row.account.cost_usd]
    return {
        "type": "scatter", "mode": "markers+text", "name": name,
        "x": [row.account.time_s.value / scale for row in rows], "y": [cost.value for cost in costs],
        "error_x": _errors([row.account.time_s for row in rows], scale, colour), "error_y": _errors(costs, 1.0, colour),
        "marker": {"color": colour, "size": 12}, "text": [labels[row.label][0] for row in rows],
        "textposition": [labels[row.label][1] for row in rows], "textfont": {"size": 13},
        "customdata": [_name(row.label) for row in rows],
        "hovertemplate": f"%{{customdata}}: %{{x:,.3~r}} {unit}, $%{{y:,.4~r}}<extra></extra>",
    }  # fmt: skip


def _errors(spans: Sequence[Range], scale: float, colour: str) -> Figure:
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 4,
        "array": [(span.high - span.value) / scale for span in spans],
        "arrayminus": [(span.value - span.low) / scale for span in spans],
    }  # fmt: skip


def _axis(spans: Sequence[Range]) -> Figure:
    """Logarithmic where values lie far apart, with labels at 1, 2 and 5 of each power: more would lie upon each other."""
    values = [span.value for span in spans]
    return {"type": "log", "dtick": "D2"} if max(values) > _LOG_FROM * min(values) else {"rangemode": "tozero"}


def _scaling(comparison: Comparison) -> Chart | None:
    """Throughput over devices, a line for each candidate of several sizes."""
    rows = [row for row in comparison.rows if sum(size.planned is not None for size in row.sizes) > 1]
    if not rows:
        return None
    traces, counts = [], set()
    for number, row in enumerate(rows):
        points = [(size.planned.n_devices, size.tokens_per_s) for size in row.sizes if size.planned and size.tokens_per_s]
        counts |= {devices for devices, _ in points}
        colour = _SERIES[number % len(_SERIES)]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": _name(row.offer.label),
            "x": [devices for devices, _ in points], "y": [speed.value for _, speed in points],
            "error_y": _errors([speed for _, speed in points], 1.0, colour),
            "line": {"color": colour, "width": 2, "dash": _DASHES[number // len(_SERIES) % len(_DASHES)]},
            "hovertemplate": "%{x} devices: %{y:,.4~r} tokens/s<extra></extra>",
        })  # fmt: skip
    figure = base_layout("devices", "tokens/s", height=380)
    ticks = sorted(counts)
    figure["xaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": [str(devices) for devices in ticks]}
    figure["yaxis"] |= {"rangemode": "tozero"}
    return Chart(
        id="scaling",
        title="Scaling",
        description="Predicted tokens per second over the devices that the best plan uses, with 80 % ranges.",
        figure={"data": traces, "layout": figure},
        table=tables.scaling_table(comparison),
        folded=True,
    )


def _break_even(comparison: Comparison) -> Chart | None:
    """Cost over runs of the workload: renting rises from nothing, buying less steeply from the purchase, for its life."""
    entries = comparison.break_evens
    if not entries:
        return None
    longest = max(entry.life_runs for entry in entries)
    lines = [(f"rent {entries[0].rented}", 0.0, entries[0].rent_usd_per_run, longest)]
    lines += [(f"buy {entry.bought}", entry.capital_usd, entry.electricity_usd_per_run, entry.life_runs) for entry in entries]
    traces = []
    for number, (name, first_usd, run_usd, most) in enumerate(lines):
        runs = [most * point / _POINTS for point in range(_POINTS + 1)]
        traces.append({
            "type": "scatter", "mode": "lines", "name": _name(name), "x": runs,
            "y": [first_usd + count * run_usd for count in runs],
            "line": {"color": _SERIES[number % len(_SERIES)], "width": 2, "dash": _DASHES[min(number, len(_DASHES) - 1)]},
            "hovertemplate": "%{x:,.0f} runs: $%{y:,.0f}<extra></extra>",
        })  # fmt: skip
    return Chart(
        id="break-even",
        title="Buy or rent",
        description="Money spent over runs of this workload. A line of what is bought ends with its life at "
        f"{percent(entries[0].assumed_utilisation, digits=0)} use; where it crosses that of renting before, buying has "
        "paid. Staff, space and maintenance are not counted.",
        figure={"data": traces, "layout": base_layout("runs of this workload", "USD spent", height=380)},
        table=tables.break_even_table(comparison),
    )


def _time(comparison: Comparison) -> Chart | None:
    """Where the time goes, as shares: the steps by what bounds them, and what happens beside them."""
    rows = comparison.ranked
    parts: dict[str, list[float]] = {}
    bounds = ("compute", "bandwidth", "host", "link", None)
    for row in rows:
        shares, steps = _bound_shares(row), row.account.duration.steps_s / row.account.time_s.value
        for bound in bounds:
            parts.setdefault(f"bound by {bound}" if bound else "other steps", []).append(100 * shares.get(bound, 0.0) * steps)
        parts.setdefault("beside the steps", []).append(100 * (1 - steps))
    colours = ("var(--compute)", "var(--bandwidth)", "var(--host)", "var(--link)", "var(--muted)", "var(--measured)")
    chosen = {name: (values, colour) for (name, values), colour in zip(parts.items(), colours, strict=True)}
    return Chart(
        id="time",
        title="Where the time goes",
        description="Shares of the time from the command to the result: steps by what bounds them; start, evaluation, "
        "checkpoints and failures beside them.",
        figure=_stacked(rows, chosen, "% of the time"),
        table=tables.time_table(comparison),
    )


def _bound_shares(row: Row) -> dict[str | None, float]:
    assert row.best is not None
    assert row.best.planned is not None
    terms = row.best.planned.choice.estimate.part("time")
    total = sum(term.value for term in terms)
    shares: dict[str | None, float] = {}
    for term in terms:
        shares[term.bound] = shares.get(term.bound, 0.0) + term.value / total
    return shares


def _memory(comparison: Comparison) -> Chart | None:
    """Terms of the peak, stacked, and a mark where a plan's share of the device ends."""
    rows = comparison.ranked
    estimates = [row.best.planned.choice.estimate for row in rows if row.best and row.best.planned]
    sums: dict[str, float] = {}
    for estimate in estimates:
        for term in estimate.part("memory"):
            sums[term.name] = sums.get(term.name, 0.0) + term.value
    named = sorted(sums, key=lambda name: -sums[name])[:_MEMORY_KINDS]
    scale = 2.0**30
    chosen: dict[str, tuple[list[float], str]] = {}
    for name, colour in zip(named, _SERIES, strict=False):
        values = [sum(term.value for term in estimate.part("memory") if term.name == name) / scale for estimate in estimates]
        chosen[name] = (values, colour)
    rest = [sum(term.value for term in estimate.part("memory") if term.name not in named) / scale for estimate in estimates]
    chosen["other"] = (rest, "var(--muted)")
    figure = _stacked(rows, chosen, "GiB")
    figure["data"].append({
        "type": "scatter", "mode": "markers", "name": "may use", "y": [_name(row.label) for row in rows],
        "x": [estimate.capacity_bytes / scale for estimate in estimates],
        "marker": {"symbol": "line-ns-open", "size": 22, "color": "var(--text)", "line": {"width": 3, "color": "var(--text)"}},
        "text": [format_bytes(estimate.capacity_bytes) for estimate in estimates],
        "hovertemplate": "%{y}: a plan may use %{text}<extra></extra>",
    })  # fmt: skip
    return Chart(
        id="memory-use",
        title="Memory against capacity",
        description="Terms of the predicted peak on the fullest device; the mark is what a plan may use of it.",
        figure=figure,
        table=tables.memory_table(comparison),
    )


def _stacked(rows: Sequence[Row], parts: dict[str, tuple[list[float], str]], unit: str) -> Figure:
    names = [_name(row.label) for row in rows]
    traces: list[dict[str, Any]] = [
        {"type": "bar", "orientation": "h", "name": html.escape(name), "y": names, "x": values, "marker": {"color": colour},
         "hovertemplate": f"%{{y}}: {html.escape(name)} %{{x:,.3~r}} {unit}<extra></extra>"}
        for name, (values, colour) in parts.items()
        if any(values)
    ]  # fmt: skip
    figure = base_layout(unit, "", height=_BAR_PX * len(rows) + 190, barmode="stack")
    figure["yaxis"] |= {"autorange": "reversed", "categoryorder": "array", "categoryarray": names}
    figure["legend"] |= {"traceorder": "normal"}
    return {"data": traces, "layout": figure}


def _name(label: str) -> str:
    """A label over several lines, so that it leaves a narrow page room for its bar."""
    return html.escape(label).replace(" with ", "<br>with ").replace(" = ", "<br>= ")


def _time_unit(longest_s: float) -> tuple[float, str]:
    units = ((172_800.0, 86_400.0, "days"), (7_200.0, 3_600.0, "hours"), (120.0, 60.0, "minutes"))
    return next(((scale, unit) for least, scale, unit in units if longest_s >= least), (1.0, "seconds"))
