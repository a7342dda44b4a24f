"""A comparison as data: the rows of its tables, and one document of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from txlplan.config import to_plain
from txlplan.config._schema import toml_key
from txlplan.estimates import Range
from txlplan.hardware import age_days, is_stale
from txlplan.planner import Account, Comparison, Row, Sensitivity, Size, describe
from txlplan.records import Record, flat

_PARTS = ("start_s", "steps_s", "evaluation_s", "checkpoints_s", "failures_s")


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A flat row for every size of every candidate, the best candidate first; base units, named in the keys."""
    return [_flat(row, size) for row in comparison.rows for size in row.sizes]


def _flat(row: Row, size: Size) -> dict[str, Any]:
    cluster, account = size.candidate.cluster, size.account
    choice = size.planned.choice if size.planned else None
    found: dict[str, Any] = {
        "candidate": size.label,
        "system": cluster.system.id,
        "device": cluster.device.id,
        "hypothetical": row.offer.hypothetical or None,
        "n_nodes": cluster.n_nodes,
        "n_devices": size.planned.n_devices if size.planned else None,
        "stands_for_candidate": size is row.best,
        "recommended_instead": size is row.smaller,
        "on_front": size.on_front,
        "plan": describe(choice.plan) if choice else None,
        "simpler_plan": describe(size.simpler.plan) if size.simpler else None,
        "runnable": choice.runnable if choice else None,
        "stack": size.candidate.stack.id,
        "paid_by": account.way if account else None,
        "capital_usd": account.capital_usd if account else None,
        "idle_devices_not_in_energy": account.n_uncounted if account else None,
        "fits_at_high_end": not choice.estimate.tight if choice else None,
        "efficiency": size.efficiency,
        "deadline_probability": size.deadline_probability,
        "budget_probability": size.budget_probability,
    }
    figures = {
        "time_s": account.time_s if account else None,
        "cost_usd": account.cost_usd if account else None,
        "energy_j": account.energy_j if account else None,
        "tokens_per_s": size.tokens_per_s,
        "peak_memory_bytes": choice.estimate.peak_memory_bytes if choice else None,
    }
    for name, figure in figures.items():
        found |= _ranged(name, figure)
    found["capacity_bytes"] = choice.estimate.capacity_bytes if choice else None
    found |= {part: getattr(account.duration, part) if account else None for part in _PARTS}
    return found | {"reason": size.reason or None}


def _ranged(name: str, figure: Range | None) -> dict[str, float | None]:
    return {
        name: figure.value if figure else None,
        f"{name}_low": figure.low if figure else None,
        f"{name}_high": figure.high if figure else None,
    }


def comparison_tables(comparison: Comparison, records: Sequence[Record] = ()) -> list[dict[str, Any]]:
    """Rows of every table, told apart by `table`; base units, named in the keys."""
    economics: dict[str, Any] = to_plain(comparison.terms.economics)
    sources = comparison.terms.economics.sources
    tables: dict[str, list[dict[str, Any]]] = {
        "sizes": comparison_rows(comparison),
        "terms": _terms(comparison),
        "break_evens": to_plain(comparison.break_evens),
        "sensitivities": [_sensitivity(one) for one in comparison.sensitivities],
        "prices": comparison_prices(comparison),
        "measured": [flat(record) for record in records],
        "assumptions": [
            {"key": key, "value": value, "source": sources.get(toml_key(key), sources.get("default"))}
            for key, value in economics.items()
            if key != "sources"
        ],
        "verdict": [{"text": text} for text in (comparison.verdict.sentence, *comparison.verdict.details)],
        "warnings": [{"text": text} for text in comparison.warnings],
    }
    return [{"table": name, **row} for name, rows in tables.items() for row in rows]


def _terms(comparison: Comparison) -> list[dict[str, Any]]:
    """Terms of the step's time and of the peak of memory of what stands for each candidate."""
    return [
        {"candidate": row.label, "quantity": quantity, **to_plain(term)}
        for row in comparison.ranked
        if row.best and row.best.planned
        for quantity in ("time", "memory")
        for term in row.best.planned.choice.estimate.part(quantity)
    ]


def _sensitivity(one: Sensitivity) -> dict[str, Any]:
    figures = _ranged("time_s", one.time_s) | _ranged("cost_usd", one.cost_usd)
    return {"change": one.change, "best": one.best or None, "changes": one.changes, **figures}


def comparison_prices(comparison: Comparison) -> list[dict[str, Any]]:
    """Every known price of one node of every candidate, with its source and its age in days."""
    found = {}
    for row in comparison.rows:
        system, today = row.offer.sizes[0].cluster.system, comparison.terms.today
        for price in system.prices:
            age = {"age_days": age_days(price, today), "stale": is_stale(price, today)}
            found[system.id, price] = {"system": system.id, **to_plain(price), **age}
    return list(found.values())


def comparison_document(comparison: Comparison, records: Sequence[Record] = ()) -> dict[str, Any]:
    """Plain JSON values of everything; `candidates` are ranked, the best first."""
    terms = comparison.terms
    return {
        "workload": to_plain(comparison.workload),
        "rank_by": terms.rank_by,
        "pay": terms.pay,
        "today": terms.today.isoformat(),
        "verdict": to_plain(comparison.verdict),
        "candidates": [_candidate(row) for row in comparison.rows],
        "break_evens": to_plain(comparison.break_evens),
        "sensitivities": to_plain(comparison.sensitivities),
        "prices": comparison_prices(comparison),
        "measured": [flat(record) for record in records],
        "assumptions": to_plain(terms.economics),
        "warnings": list(comparison.warnings),
    }


def _candidate(row: Row) -> dict[str, Any]:
    size = row.best or row.sizes[0]
    choice = row.best.planned.choice if row.best and row.best.planned else None
    return {
        "candidate": row.label,
        "system": size.candidate.cluster.system.id,
        "n_nodes": size.candidate.cluster.n_nodes,
        "stack": size.candidate.stack.id,
        "on_front": row.on_front,
        "deadline_probability": size.deadline_probability,
        "budget_probability": size.budget_probability,
        "smaller": row.smaller.label if row.smaller else None,
        "smaller_probability": row.smaller_probability,
        "surer_plan": describe(row.surer.planned.choice.plan) if row.surer and row.surer.planned else None,
        "plan": to_plain(choice.plan) if choice else None,
        "estimate": to_plain(choice.estimate) if choice else None,
        "account": _account(row.account) if row.best else None,
        "accounts": [_account(account) for account in size.accounts],
        "sizes": [_flat(row, each) for each in row.sizes],
        "reason": row.reason or None,
    }


def _account(account: Account) -> dict[str, Any]:
    found: dict[str, Any] = to_plain(account)
    return found | {"time_s": to_plain(account.time_s)}
