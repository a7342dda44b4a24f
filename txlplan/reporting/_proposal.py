"""A plan that is proposed, before it has run: one sentence, rows for a table, one HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from txlplan.config import to_plain
from txlplan.estimates import Estimate
from txlplan.plan_file import PlanFile
from txlplan.planner import Candidate, Choice, describe, standing
from txlplan.records import now
from txlplan.reporting import _render
from txlplan.reporting._charts import terms_chart
from txlplan.reporting._format import moment, span
from txlplan.reporting._tables import Table
from txlplan.reporting._validation import Page
from txlplan.reporting._write import write_text
from txlplan.units import format_bytes, format_j, format_rate, format_s, format_usd

_DOING = {"train": "Train", "score": "Score with", "generate": "Generate with"}


def proposal_sentence(target: Candidate, plan_file: PlanFile, choice: Choice) -> str:
    """`Train demo-bytes on local-cpu with micro_batch 8, fp32, 2 threads: 9,402 tokens/s (4,593 to 19,247 tokens/s), …`."""
    workload, found, time_s = plan_file.workload, choice.estimate, choice.totals.time_s
    whole = f"; {workload.tokens:,} tokens in {format_s(time_s.value)} ({span(time_s, format_s)})" if time_s else ""
    return (
        f"{_DOING[workload.task]} {workload.model.id} on {target.label} with {describe(choice.plan)}: "
        f"{_rate(found.tokens_per_s.value)} ({span(found.tokens_per_s, _rate)}), "
        f"{format_bytes(found.peak_memory_bytes.value)} of {format_bytes(found.capacity_bytes)} a device{whole}"
    )


def proposal_rows(choice: Choice) -> list[dict[str, Any]]:
    """A flat row for the plan offered, which leads, and each runner-up; base units, named in the keys."""
    plans = [(choice.plan, choice.estimate, 0.0), *((one.plan, one.estimate, one.behind) for one in choice.runners_up)]
    return [
        {"plan": describe(plan), "offered": plan is choice.plan, "behind": behind, **_figures(found), **to_plain(plan)}
        for plan, found, behind in plans
    ]


def proposal_summary_html(target: Candidate, plan_file: PlanFile, choice: Choice) -> str:
    """Sentence and table, for a notebook: no script, no style of its own."""
    table = _plans_table(choice)
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    sentence = html.escape(proposal_sentence(target, plan_file, choice))
    return f"<p><strong>{sentence}</strong></p><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def write_proposal(target: Candidate, plan_file: PlanFile, choice: Choice, path: Path, *, caveats: Sequence[str] = ()) -> Path:
    """Write the page to `path`, atomically, and give the path back; it is one file that loads nothing.

    `caveats` say what the figures leave out.
    Raises ConfigError for a template that is wrong, InputError where `path` cannot be written.
    """
    charts = (terms_chart(choice.estimate, "time"), terms_chart(choice.estimate, "memory"))
    sections = (("The plan and its runners-up", _plans_table(choice)), ("Not chosen", _rejections_table(choice)))
    page = Page(
        title=f"{plan_file.workload.model.id} on {target.label}",
        sentence=proposal_sentence(target, plan_file, choice),
        details=(*_details(choice), *caveats, *choice.estimate.notes),
        made_at=moment(now()),
        charts=tuple(chart for chart in charts if chart),
        sections=tuple((heading, table) for heading, table in sections if table.rows),
    )
    return write_text(path, _render.filled("plan.html.j2", {"page": page, "plotly": _render.plotly()}))


def _details(choice: Choice) -> tuple[str, ...]:
    totals = choice.totals
    proven = choice.n_considered - choice.n_costed
    more = f", {proven:,} more proven to be worse" if proven > 0 else ""
    said = [f"{choice.n_costed:,} plans costed, {choice.n_fitting:,} of them fit{more}. Ranges are 80 % intervals."]
    if totals.cost_usd is not None:
        said.append(f"Rent {format_usd(totals.cost_usd.value)} ({span(totals.cost_usd, format_usd)}).")
    if totals.energy_j is not None:
        said.append(f"Energy {format_j(totals.energy_j.value)} ({span(totals.energy_j, format_j)}).")
    if choice.optimum is not None:
        other, told = describe(choice.optimum.plan), standing(choice.optimum.behind)
        said.append(f"The best plan by its figures, which the ranges cannot tell from this simpler one: {other} ({told}).")
    return (*said, *(f"Cannot be run yet: {reason}." for reason in choice.plan.not_runnable()))


def _plans_table(choice: Choice) -> Table:
    plans = [(choice.plan, choice.estimate, "offered")]
    plans += [(one.plan, one.estimate, standing(one.behind)) for one in choice.runners_up]
    return Table(
        caption="Plans, the one that is offered first; 80 % ranges",
        columns=("plan", "standing", "throughput", "range", "peak memory", "range"),
        rows=tuple(
            (
                describe(plan),
                told,
                _rate(found.tokens_per_s.value),
                span(found.tokens_per_s, _rate),
                format_bytes(found.peak_memory_bytes.value),
                span(found.peak_memory_bytes, format_bytes),
            )
            for plan, found, told in plans
        ),
        text_columns=2,
    )


def _rejections_table(choice: Choice) -> Table:
    return Table(
        caption="The best plan with each other value of each setting, and what speaks against it",
        columns=("setting", "standing", "why"),
        rows=tuple((f"{one.setting} {one.value}", standing(one.behind), one.reason) for one in choice.rejections),
        text_columns=3,
    )


def _figures(found: Estimate) -> dict[str, float | None]:
    ranges = {
        "tokens_per_s": found.tokens_per_s,
        "step_s": found.step_s,
        "peak_memory_bytes": found.peak_memory_bytes,
        "energy_j_per_step": found.energy_j_per_step,
    }
    figures: dict[str, float | None] = {}
    for name, value in ranges.items():
        figures |= {name: value.value if value else None}
        figures |= {f"{name}_low": value.low if value else None, f"{name}_high": value.high if value else None}
    return figures


def _rate(value: float | None) -> str:
    return format_rate(value, "tokens")
