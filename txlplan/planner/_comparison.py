"""The whole of a comparison: rows, verdict, front, break-even, sensitivity, and what to be warned of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from txlplan.hardware import IDLE_SHARE, Price, age_text, is_stale
from txlplan.planner._break_even import BreakEven, break_evens, pairs
from txlplan.planner._compare import Mapped, Row, Terms, rows_of
from txlplan.planner._limits import no_price, price_hint
from txlplan.planner._offer import Offer
from txlplan.planner._resolve import Candidate
from txlplan.planner._sensitivity import Sensitivity, sensitivities
from txlplan.planner._space import Space
from txlplan.planner._verdict import Verdict, tight_memory, verdict
from txlplan.units import format_s, format_usd
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Candidates, the best first; those whose figure is unknown follow, those that are out come last."""

    workload: Workload
    terms: Terms
    rows: tuple[Row, ...]
    verdict: Verdict
    break_evens: tuple[BreakEven, ...]
    sensitivities: tuple[Sensitivity, ...]
    warnings: tuple[str, ...]
    """Prices that are old, and what else weakens the answer."""

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The rows that are in."""
        return tuple(row for row in self.rows if row.best)

    @property
    def stale_prices(self) -> tuple[tuple[str, Price], ...]:
        """System and price of what ranks a candidate, or buying against renting, and is older than 90 days."""
        return _stale_prices(self.rows, self.terms)


def compare(
    workload: Workload,
    offers: Sequence[Offer | Candidate],
    *,
    terms: Terms | None = None,
    space: Space | None = None,
    mapped: Mapped = map,
) -> Comparison:
    """Plan the workload on every candidate, account for time, money and energy, and rank.

    `mapped` is `map`, or what does the same on more cores: candidates are planned independently.
    Raises InputError without candidates or tokens, NoPlanFitsError when none fits memory, deadline and budget.
    """
    terms = terms or Terms.default()
    asked = [
        _waiting(offer if isinstance(offer, Offer) else Offer(sizes=(offer,)), terms.economics.idle_share) for offer in offers
    ]
    rows = rows_of(workload, asked, terms, space, mapped)
    return Comparison(
        workload=workload,
        terms=terms,
        rows=tuple(rows),
        verdict=verdict(workload, rows, terms),
        break_evens=break_evens(rows, terms.economics),
        sensitivities=sensitivities(workload, rows, terms),
        warnings=_warnings(rows, terms),
    )


def _waiting(offer: Offer, share: float) -> Offer:
    """Its devices draw the share of their rated power that is assumed while they wait, where their profile says nothing."""
    if share == IDLE_SHARE or offer.sizes[0].cluster.device.idle_share is not None:
        return offer
    sizes = tuple(
        replace(size, cluster=replace(size.cluster, device=replace(size.cluster.device, idle_share=share)))
        for size in offer.sizes
    )
    return replace(offer, sizes=sizes)


def _warnings(rows: Sequence[Row], terms: Terms) -> tuple[str, ...]:
    """Old and borrowed prices, one line each, and the notes of the estimates."""
    found: dict[str, None] = {
        f"the {price.kind} price of {system} is {age_text(price, terms.today)} ({price.date}): "
        "state today's with --price, or `txlplan prices import`": None
        for system, price in _stale_prices(rows, terms)
    }
    for row in rows:
        if row.best is None:
            continue
        if row is not rows[0] and (text := tight_memory(row.recommended)):
            found[text] = None
        if row.offer.hypothetical and row.account.price is not None:
            found[f"{row.label} does not exist: it is given the price of {row.best.candidate.cluster.system.id}"] = None
        found |= dict.fromkeys(text for text in (_idle(row),) if text)
        if row.best.planned is not None and not row.best.planned.choice.runnable:
            found[
                "plans marked `not run by this version` are costed only: --runnable compares what each candidate can run today"
            ] = None
    found |= dict.fromkeys(text for row in rows if (text := _smaller(row, terms)))
    if lacking := [row.sizes[0].candidate.cluster.system.id for row in rows if row.unpriced]:
        rank = "ranked last" if any(row.best for row in rows if row.unpriced) else "left out"
        found[f"{no_price(lacking, terms.pay)}: {rank}; {price_hint(min(lacking), terms.pay)}"] = None
    for row in rows:
        if row.best is not None and row.best.planned is not None:
            found |= dict.fromkeys(row.best.planned.choice.estimate.notes)
    return tuple(found)


def _stale_prices(rows: Sequence[Row], terms: Terms) -> tuple[tuple[str, Price], ...]:
    """Each once, in the order of the rows."""
    ranking = [(row.best, row.account) for row in rows if row.best]
    compared = [paid for pair in pairs(rows) for paid in pair]
    used = {(size.candidate.cluster.system.id, account.price): None for size, account in (*ranking, *compared) if account.price}
    return tuple((system, price) for system, price in used if is_stale(price, terms.today))


def _idle(row: Row) -> str:
    """That a plan leaves nodes idle, so that they are not counted."""
    assert row.best is not None
    assert row.best.planned is not None
    nodes, used = row.best.candidate.cluster.n_nodes, row.best.planned.n_nodes
    return f"the best plan for {row.label} occupies {used:,} of {nodes:,} nodes: only these are counted" if used < nodes else ""


def _smaller(row: Row, terms: Terms) -> str:
    """That a smaller size is recommended, and what is given up for it; empty where it is not."""
    if row.smaller is None or row.smaller_probability is None:
        return ""
    quality = {"time": "faster", "cost": "cheaper", "energy": "less hungry"}[terms.rank_by]
    cost = format_usd(row.account.cost_usd.value) if row.account.cost_usd else "at unknown cost"
    return (
        f"{row.label} is {quality} than {row.smaller.label} by its figures ({format_s(row.account.time_s.value)}, {cost}), but "
        f"the ranges tell them apart with a probability of {row.smaller_probability * 100:.0f} % only: the smaller one is "
        "recommended"
    )
