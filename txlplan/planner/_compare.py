"""Which hardware for a workload: the best plan on each candidate, ranked by time or by cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from txlplan.errors import InputError, NoPlanFitsError, TxlplanError
from txlplan.planner._choose import Choice, plan
from txlplan.planner._resolve import Candidate
from txlplan.planner._space import Space
from txlplan.units import format_s, format_usd
from txlplan.workload import Workload

RankBy = Literal["time", "cost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One candidate: its best plan, or why it has none."""

    candidate: Candidate
    choice: Choice | None
    reason: str = ""
    """Why no plan was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Candidates, the best first; those with unknown cost follow those with a cost, those without a plan come last."""

    rows: tuple[Row, ...]
    rank_by: RankBy
    verdict: str
    """One sentence."""


def compare(
    workload: Workload, candidates: Sequence[Candidate], *, rank_by: RankBy = "time", space: Space | None = None
) -> Comparison:
    """Plan the workload on every candidate and rank them.

    Raises InputError without candidates or tokens, NoPlanFitsError when the workload fits none of them.
    """
    if not candidates:
        raise InputError("nothing to compare", hint="name systems, e.g. --on dgx-1,dgx-a100-40gb")
    if workload.tokens is None:
        raise InputError("a comparison needs the number of tokens", hint="state it with --tokens, e.g. --tokens 1.8e9")
    rows = sorted((_row(workload, candidate, space) for candidate in candidates), key=lambda row: _rank(row, rank_by))
    if rows[0].choice is None:
        reasons = "; ".join(f"{row.candidate.label}: {row.reason}" for row in rows)
        raise NoPlanFitsError(f"the workload fits none of {len(rows)} candidates: {reasons}")
    return Comparison(rows=tuple(rows), rank_by=rank_by, verdict=_verdict(rows, rank_by))


def _row(workload: Workload, candidate: Candidate, space: Space | None) -> Row:
    """The best plan on one candidate; where no price is known, the fastest stands for the cheapest."""
    if workload.objective == "cheapest" and candidate.cluster.system.price("on-demand") is None:
        workload = replace(workload, objective="fastest")
    try:
        return Row(candidate=candidate, choice=plan(workload, candidate.cluster, candidate.stack, space=space))
    except TxlplanError as error:
        return Row(candidate=candidate, choice=None, reason=error.message)


def _rank(row: Row, rank_by: RankBy) -> tuple[int, float, float]:
    if row.choice is None:
        return 2, 0.0, 0.0
    time_s, cost_usd = row.choice.totals.time_s, row.choice.totals.cost_usd
    assert time_s is not None
    if rank_by == "time":
        return 0, time_s.value, cost_usd.value if cost_usd else float("inf")
    return (0, cost_usd.value, time_s.value) if cost_usd else (1, time_s.value, 0.0)


def _verdict(rows: Sequence[Row], rank_by: RankBy) -> str:
    best = rows[0]
    assert best.choice is not None
    time_s, cost = best.choice.totals.time_s, best.choice.totals.cost_usd
    assert time_s is not None
    spent = f"for {format_usd(cost.value)}" if cost else "at unknown cost"
    quality = "fastest" if rank_by == "time" else "cheapest" if cost else "fastest (no price is known)"
    sentence = f"{best.candidate.label} is {quality}: {format_s(time_s.value)} {spent}"
    others = [row for row in rows[1:] if row.choice is not None]
    if not others:
        return f"{sentence}; no other candidate runs it."
    return f"{sentence}; {_lead(best, others[0], rank_by)}."


def _lead(best: Row, second: Row, rank_by: RankBy) -> str:
    """How far the second is behind, and whether their ranges overlap."""
    assert best.choice is not None
    assert second.choice is not None
    pairs = (best.choice.totals, second.choice.totals)
    first, other = (totals.cost_usd if rank_by == "cost" else totals.time_s for totals in pairs)
    if first is None or other is None:
        return f"next is {second.candidate.label}, whose price is unknown" if first else f"next is {second.candidate.label}"
    certainty = "the ranges overlap, so the order is not certain" if other.low < first.high else "their ranges do not overlap"
    measure = "costs" if rank_by == "cost" else "takes"
    return f"{second.candidate.label} {measure} {other.value / first.value:.2f} times as much ({certainty})"
