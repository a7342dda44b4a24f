"""What `txlplan plan` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from txlplan.cli._targets import print_estimate, ranged
from txlplan.units import format_bytes, format_j, format_rate, format_s, format_usd

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.advice import Proposal
    from txlplan.planner import Choice


def show(console: Console, found: Proposal, written: Sequence[Path]) -> None:
    """The plan with its figures, what was considered, and what else there is."""
    from txlplan.planner import describe

    choice, workload = found.choice, found.plan_file.workload
    title = f"{workload.model.id}, {workload.task}, on {found.target.label}: {describe(choice.plan)}"
    if workload.task == "train":
        title += f"; global batch {choice.plan.global_batch:,}"
    console.print(title, markup=False, highlight=False)
    print_estimate(console, choice.estimate)
    for line in (*_totals(found), *found.caveats, *_considered(choice)):
        console.print(line, markup=False, highlight=False)
    _print_runners_up(console, choice)
    _print_rejections(console, choice)
    for path in written:
        console.print(f"wrote {path}", markup=False, highlight=False)


def _totals(found: Proposal) -> list[str]:
    """Of the whole workload: `1,000,000 tokens: 106 s (52.0 s to 3.63 min), rent unknown, energy unknown`."""
    tokens, totals = found.plan_file.workload.tokens, found.choice.totals
    if tokens is None:
        return ["how long it takes in all: say with --tokens, or --data"]
    said = (ranged(totals.time_s, format_s), f"rent {ranged(totals.cost_usd, format_usd)}")
    lines = [f"{tokens:,} tokens: {', '.join((*said, f'energy {ranged(totals.energy_j, format_j)}'))}"]
    chances = {"deadline": found.choice.deadline_probability, "budget": found.choice.budget_probability}
    met = [f"the {name} with a probability of {likely:.0%}" for name, likely in chances.items() if likely is not None]
    return [*lines, f"by these ranges it meets {' and '.join(met)}"] if met else lines


def _considered(choice: Choice) -> list[str]:
    from txlplan.planner import describe, standing

    proven = choice.n_considered - choice.n_costed
    cut = f", {proven:,} more proven to be worse" if proven > 0 else ""
    lines = [f"{choice.n_costed:,} plans costed, {choice.n_fitting:,} of them fit{cut}"]
    if choice.optimum is not None:
        best = f"{describe(choice.optimum.plan)} ({standing(choice.optimum.behind)})"
        lines.append(f"the best plan by its figures is {best}; the ranges cannot tell it from the one above, which is simpler")
    return lines + [f"cannot be run yet: {reason}" for reason in choice.plan.not_runnable()]


def _print_runners_up(console: Console, choice: Choice) -> None:
    from rich.table import Table

    from txlplan.planner import standing

    if not choice.runners_up:
        return
    table = Table(box=None, pad_edge=False)
    for header in ("runner-up", "standing", "throughput", "peak memory"):
        table.add_column(header, justify="left" if header == "runner-up" else "right", overflow="fold")
    for other in choice.runners_up:
        found = other.estimate
        speed, memory = format_rate(found.tokens_per_s.value, "tokens"), format_bytes(found.peak_memory_bytes.value)
        table.add_row(other.difference, standing(other.behind), speed, memory)
    console.print(table)


def _print_rejections(console: Console, choice: Choice) -> None:
    from rich.table import Table

    from txlplan.planner import standing

    if not choice.rejections:
        return
    table = Table(box=None, pad_edge=False)
    for header in ("not chosen", "standing", "why"):
        table.add_column(header, justify="right" if header == "standing" else "left", overflow="fold")
    for one in choice.rejections:
        table.add_row(f"{one.setting} {one.value}", standing(one.behind), one.reason)
    console.print(table)
