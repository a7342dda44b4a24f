"""Why other values of each setting were not chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from txlplan.cost import estimate
from txlplan.cost._plans import COLUMNS, NAMES
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.planner._objective import objective_of
from txlplan.planner._search import Found
from txlplan.units import format_bytes, format_s
from txlplan.workload import Workload

_DEPENDENT = ("accumulation",)
"""Settings that follow from the others."""
_CHECKPOINTING = ("activation_checkpointing", "checkpointed_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """One value of one setting."""

    setting: str
    value: Any
    behind: float | None
    """How much worse the best plan with it is than the one offered, 0.05 for 5 %; None where no plan with it is left."""
    reason: str


def settings_that_differ(one: Plan, other: Plan) -> str:
    """`micro_batch 8 (not 16), accumulation 2 (not 1)`."""
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in COLUMNS]
    return ", ".join(f"{name} {own} (not {its})" for name, own, its in pairs if own != its)


def rejections(workload: Workload, cluster: Cluster, stack: StackProfile, found: Found, offered: int) -> tuple[Rejection, ...]:
    """For every value of every setting that the plan offered does not have: its best plan, and which term makes it worse."""
    best, objective = found.plans[offered], found.objective[offered]
    of_best = estimate(workload, cluster, stack, [best])[0]
    plain, values = found.plain, objective_of(workload, cluster, found.plain)
    usable = plain.fits & found.limits.met
    said = []
    for name in COLUMNS:
        if name in (*_DEPENDENT, *_CHECKPOINTING):
            continue
        column = plain.plans.columns[name]
        for stored in np.unique(column):
            value = _value(name, int(stored))
            if value == getattr(best, name):
                continue
            mine = column == stored
            left = np.flatnonzero(mine & usable)
            if not left.size:
                said.append(Rejection(setting=name, value=value, behind=None, reason=_why_none(found, mine)))
                continue
            place = int(left[values[left].argmin()])
            other = estimate(workload, cluster, stack, [plain.plans[place]])[0]
            reason = f"{_worst_term(other, of_best)} (with {settings_that_differ(plain.plans[place], best)})"
            said.append(Rejection(setting=name, value=value, behind=float(values[place] / objective - 1.0), reason=reason))
    return (*said, *_checkpointing(workload, cluster, stack, best, of_best))


def _value(name: str, stored: int) -> Any:
    if name in NAMES:
        return NAMES[name][stored]
    if name == "compile":
        return bool(stored)
    return None if stored == 0 and name == "threads" else stored


def _why_none(found: Found, mine: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
    estimates = found.plain
    if not found.limits.met[mine].any():
        return "misses the deadline, the budget or the power cap"
    over = (estimates.peak_memory_bytes - estimates.capacity_bytes)[mine]
    if over.min() > 0:
        return f"does not fit without checkpointing: {format_bytes(float(over.min()))} too many"
    return "what fits misses the deadline, the budget or the power cap"


def _checkpointing(workload: Workload, cluster: Cluster, stack: StackProfile, best: Plan, of_best: Estimate) -> list[Rejection]:
    """Other kinds of checkpointing of the plan that is offered, of all layers: time and memory are traded."""
    if workload.task != "train":
        return []
    said = []
    for kind in NAMES["activation_checkpointing"]:
        if kind == best.activation_checkpointing:
            continue
        changed = replace(best, activation_checkpointing=kind, checkpointed_layers=None)  # type: ignore[arg-type]
        other = estimate(workload, cluster, stack, [changed])[0]
        behind = of_best.tokens_per_s.value / other.tokens_per_s.value - 1.0
        saved = of_best.peak_memory_bytes.value - other.peak_memory_bytes.value
        reason = f"saves {format_bytes(saved)} that are not needed" if saved > 0 else f"needs {format_bytes(-saved)} more"
        if not other.fits:
            over = format_bytes(other.peak_memory_bytes.value - other.capacity_bytes)
            said.append(Rejection(setting=_CHECKPOINTING[0], value=kind, behind=None, reason=f"does not fit: {over} too many"))
            continue
        said.append(Rejection(setting=_CHECKPOINTING[0], value=kind, behind=behind, reason=reason))
    return said


def _worst_term(other: Estimate, best: Estimate) -> str:
    """The term of a token's time that grows most: `all-reduce: 120 ms a step, not 3 ms`."""
    scale = (best.tokens_per_s.value * best.step_s.value) / (other.tokens_per_s.value * other.step_s.value)
    its = {term.name: term.value * scale for term in other.part("time")}
    own = {term.name: term.value for term in best.part("time")}
    name = max(its, key=lambda name: its[name] - own.get(name, 0.0))
    return f"{name}: {format_s(its[name])} for the same tokens, not {format_s(own.get(name, 0.0))}"
