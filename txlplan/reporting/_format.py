"""How a report writes numbers: unknown is "unknown", a minus is a minus."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from txlplan.estimates import Range
from txlplan.plan_file import Plan

Formatter = Callable[[float | None], str]


def percent(fraction: float | None, *, signed: bool = False, digits: int = 1) -> str:
    """`0.041` → `4.1 %`; signed, `+4.1 %` or `−4.1 %`; what rounds to nothing has no minus."""
    if fraction is None:
        return "unknown"
    text = f"{fraction * 100:{'+' if signed else ''}z.{digits}f} %"
    return text.replace("-", "−")


def span(interval: Range | None, write: Formatter) -> str:
    """`4,333 to 6,118 tokens/s`, by the formatter of its quantity."""
    if interval is None:
        return "unknown"
    low, high = write(interval.low), write(interval.high)
    number_, _, unit = low.partition(" ")
    return f"{number_} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain decimal."""
    return "unknown" if value is None else f"{value:z.{digits}f}"


def yes_no(value: bool | None) -> str:
    """`yes`, `no` or `unknown`."""
    return "unknown" if value is None else "yes" if value else "no"


def moment(iso: str | None) -> str:
    """`2025-03-04T09:30:00Z` → `2025-03-04 09:30 UTC`."""
    if iso is None:
        return "unknown"
    try:
        return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return iso


def duration_s(began: str, ended: str | None) -> float | None:
    """Seconds between two ISO moments, or None where one is unknown."""
    try:
        return None if ended is None else (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    except (ValueError, TypeError):
        return None


def plan_text(plan: Plan) -> str:
    """A plan in a few words: `fp32, 16 sequences, 2 threads`."""
    batch = f"{plan.micro_batch} sequences" if plan.accumulation == 1 else f"{plan.micro_batch} × {plan.accumulation} sequences"
    axes = {"data": plan.data_parallel, "tensor": plan.tensor_parallel, "pipeline": plan.pipeline_parallel}
    parts = [plan.precision, batch, *(f"{name} parallel {size}" for name, size in axes.items() if size > 1)]
    if plan.context_parallel > 1:
        parts.append(f"context parallel {plan.context_parallel}")
    if plan.zero_stage:
        parts.append(f"ZeRO {plan.zero_stage}")
    if plan.activation_checkpointing != "none":
        parts.append(f"{plan.activation_checkpointing} activation checkpointing")
    if plan.attention != "fast":
        parts.append(f"{plan.attention} attention")
    if plan.compile:
        parts.append("compiled")
    if plan.threads:
        parts.append(f"{plan.threads} thread{'s' if plan.threads > 1 else ''}")
    return ", ".join(parts)
