"""A plan that may be run, and how to say it in a few words."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.estimates import Estimate
from txlplan.plan_file import Plan
from txlplan.units import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A plan that may be run, and what was predicted of it."""

    plan: Plan
    estimate: Estimate


def describe(plan: Plan) -> str:
    """A plan in a few words: `fp32, micro-batch 16 × 2, 2 threads, fast attention`."""
    accumulation = f" × {plan.accumulation}" if plan.accumulation > 1 else ""
    parts = [plan.precision, f"micro-batch {plan.micro_batch}{accumulation}"]
    parts += [f"{plan.n_devices} devices"] if plan.n_devices > 1 else []
    parts += [counted(plan.threads, "thread")] if plan.threads else []
    parts += ["activation checkpointing"] if plan.activation_checkpointing != "none" else []
    parts += [f"{plan.attention} attention"]
    parts += ["compiled"] if plan.compile else []
    return ", ".join(parts)
