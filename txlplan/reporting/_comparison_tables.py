"""The tables of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from txlplan.estimates import Range
from txlplan.hardware import age_text, is_stale
from txlplan.planner import Account, Comparison, Row, Size, describe
from txlplan.reporting._format import percent, span
from txlplan.reporting._tables import Table
from txlplan.units import format_bytes, format_bytes_per_s, format_count, format_j, format_rate, format_s, format_usd

PAID = {"rent": "rented", "spot": "rented (spot)", "buy": "bought", None: "unknown"}


def ranged(value: Range | None, write: Callable[[float | None], str]) -> str:
    """`$103.76 ($62.31 to $175.72)`; the interval is the 80 % one."""
    return "unknown" if value is None else f"{write(value.value)} ({span(value, write)})"


def uncounted(account: Account) -> str:
    """`, without 7 idle devices`: those whose draw is unknown; empty where the energy is that of all devices of the nodes."""
    return f", without {account.n_uncounted} idle devices" if account.n_uncounted else ""


def rate(value: float | None) -> str:
    """Tokens per second."""
    return format_rate(value, "tokens")


def each_size(comparison: Comparison) -> Iterator[tuple[Row, Size, Account]]:
    """Every size that has a plan and an account."""
    for row in comparison.rows:
        for size in row.sizes:
            if size.planned is not None and size.account is not None:
                yield row, size, size.account


def scaling_table(comparison: Comparison) -> Table:
    """Every size of every candidate: speed and efficiency over devices."""
    rows = tuple(
        (
            size.label,
            str(size.planned.n_devices),
            ranged(size.tokens_per_s, rate),
            percent(size.efficiency),
            format_s(account.time_s.value),
            format_usd(account.cost_usd.value if account.cost_usd else None),
        )
        for _, size, account in each_size(comparison)
        if size.planned
    )
    columns = ("candidate", "devices used", "throughput (80 % range)", "efficiency per device", "time", "cost")
    return Table(caption="Speed over the number of devices", columns=columns, rows=rows)


def pareto_table(comparison: Comparison) -> Table:
    """Time, cost and energy of every candidate, and who is on the front."""
    rows = tuple(
        (
            f"{place} {row.label}",
            ranged(row.account.time_s, format_s),
            ranged(row.account.cost_usd, format_usd),
            ranged(row.account.energy_j, format_j) + uncounted(row.account),
            "yes" if row.on_front else "no",
        )
        for place, row in enumerate(comparison.ranked, start=1)
    )
    columns = ("candidate", "time (80 % range)", "cost (80 % range)", "energy (range)", "on the front")
    return Table(caption="Time, cost and energy", columns=columns, rows=rows)


def memory_table(comparison: Comparison) -> Table:
    """Peak memory against what a plan may use."""
    rows = []
    for row in comparison.ranked:
        if row.best and row.best.planned:
            estimate = row.best.planned.choice.estimate
            share = estimate.peak_memory_bytes.value / estimate.capacity_bytes
            rows.append(
                (
                    row.label,
                    ranged(estimate.peak_memory_bytes, format_bytes),
                    format_bytes(estimate.capacity_bytes),
                    percent(share),
                )
            )
    columns = ("candidate", "peak of the fullest device (80 % range)", "may use", "used")
    return Table(caption="Predicted peak memory", columns=columns, rows=tuple(rows))


def time_table(comparison: Comparison) -> Table:
    """Where the time of every candidate goes."""
    rows = []
    for row in comparison.ranked:
        parts = row.account.duration
        figures = (parts.start_s, parts.steps_s, parts.evaluation_s, parts.checkpoints_s, parts.failures_s, parts.total_s.value)
        rows.append((row.label, *(format_s(figure) if figure else "0" for figure in figures)))
    columns = ("candidate", "start", "steps", "evaluation", "checkpoints", "failures", "in all")
    return Table(caption="From the command to the result", columns=columns, rows=tuple(rows))


def break_even_table(comparison: Comparison) -> Table:
    """Whether buying pays, and how much use it needs to."""
    rows = tuple(
        (
            one.bought,
            one.rented,
            one.answer,
            format_usd(one.capital_usd),
            format_usd(one.electricity_usd_per_run),
            format_usd(one.rent_usd_per_run),
            _runs(one.runs, one.runs_low, one.runs_high),
            format_count(one.life_runs),
            format_s(one.use_s / one.assumed_utilisation) if one.pays and one.use_s is not None else "never",
        )
        for one in comparison.break_evens
    )
    used = percent(comparison.terms.economics.utilisation, digits=0)
    columns = ("bought", "against renting", "buying", "purchase", "electricity a run", "rent a run", "runs needed (range)",
               "runs in its life", f"until it pays at {used} use")  # fmt: skip
    caption = f"Buying against the cheapest rent; what is bought is taken to be at work {used} of its life"
    return Table(caption=caption, columns=columns, rows=rows, text_columns=3)


def _runs(runs: float | None, low: float | None, high: float | None) -> str:
    if runs is None:
        return "never"
    ends = [format_count(end) if end is not None else "never" for end in (low, high)]
    return f"{format_count(runs)} ({ends[0]} to {ends[1]})"


def sensitivity_table(comparison: Comparison) -> Table:
    """What would be recommended if things were otherwise."""
    rows = tuple(
        (
            one.change,
            one.best or ("unknown" if one.changes is None else "none: with the plans shown, all miss deadline or budget"),
            {None: "cannot be told: its price or figure is unknown", True: "another", False: "the same"}[one.changes],
            format_s(one.time_s.value if one.time_s else None),
            format_usd(one.cost_usd.value if one.cost_usd else None),
        )
        for one in comparison.sensitivities
    )
    columns = ("if", "take", "recommendation", "time", "cost")
    return Table(caption="What would be recommended if one thing were otherwise", columns=columns, rows=rows, text_columns=3)


def price_table(comparison: Comparison) -> Table:
    """Every price that is known of the candidates, with source and age."""
    today, rows = comparison.terms.today, {}
    for row in comparison.rows:
        system = row.offer.sizes[0].cluster.system
        for price in system.prices:
            text = f"{format_usd(price.rent_usd_per_h)} an hour" if price.rent_usd_per_h else format_usd(price.purchase_usd)
            where = price.source + (f", {price.region}" if price.region else "")
            rows[system.id, price] = (
                system.id,
                price.kind,
                text,
                f"{price.date} ({age_text(price, today)}{', stale' if is_stale(price, today) else ''})",
                where,
            )
    columns = ("system", "kind", "price", "date", "source")
    return Table(caption="Every known price of one node", columns=columns, rows=tuple(rows.values()), text_columns=5)


def assumption_table(comparison: Comparison) -> Table:
    """What was assumed, and who says so."""
    economics = comparison.terms.economics
    values = {
        "electricity": f"${economics.electricity_usd_per_j * 3.6e6:.4g} per kWh",
        "pue": f"{economics.pue:g}",
        "life_years": f"{economics.life_years:g} years",
        "utilisation": percent(economics.utilisation),
        "start": format_s(economics.start_s),
        "restart": format_s(economics.restart_s),
        "device_failure": f"one in {format_s(economics.device_failure_s)} of a device",
        "spot_interruption": f"one in {format_s(economics.spot_interruption_s)} of a node",
        "storage_bandwidth": format_bytes_per_s(economics.storage_bandwidth_bytes_per_s),
        "evaluate_every_steps": format_count(economics.evaluate_every_steps),
        "evaluation_tokens": format_count(economics.evaluation_tokens),
        "shared_error": percent(economics.shared_error),
        "shared_device_error": percent(economics.shared_device_error),
        "idle_share": percent(economics.idle_share),
    }
    rows = tuple(
        (key.replace("_", " "), value, economics.sources.get(key, economics.sources.get("default", "unknown")))
        for key, value in values.items()
    )
    caption = f"Assumptions {economics.id!r}, noted on {economics.date}"
    return Table(caption=caption, columns=("what", "value", "source"), rows=rows, text_columns=3)


def plan_table(comparison: Comparison) -> Table:
    """The plan of every candidate and what its estimate rests on."""
    rows = tuple(
        (
            row.label,
            describe(row.best.planned.choice.plan),
            describe(row.best.simpler.plan) if row.best.simpler else "none",
            row.best.candidate.stack.id,
            "extrapolated" if row.best.planned.choice.estimate.extrapolated else "measured on this device",
            PAID[row.account.way],
        )
        for row in comparison.ranked
        if row.best and row.best.planned
    )
    columns = ("candidate", "plan", "simpler, and not told apart", "stack", "estimate", "paid for by")
    return Table(
        caption="The best plan of each candidate, a simpler one that ranges cannot tell from it, and what estimates rest on",
        columns=columns,
        rows=rows,
        text_columns=6,
    )


def out_table(comparison: Comparison) -> Table:
    """Candidates, and sizes of candidates, that are out, and why."""
    rows = tuple((size.label, size.reason) for row in comparison.rows for size in row.sizes if size.reason)
    return Table(caption="Candidates and sizes that cannot serve", columns=("candidate", "why"), rows=rows, text_columns=2)
