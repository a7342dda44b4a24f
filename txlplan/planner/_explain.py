"""Why other values of each setting were not chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from txlplan.cost import Estimates, estimate
from txlplan.cost._plans import COLUMNS, NAMES
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.planner._objective import behind
from txlplan.planner._search import Found, search
from txlplan.planner._space import Space
from txlplan.units import format_bytes, format_s
from txlplan.workload import Workload

_DEPENDENT = ("accumulation",)
"""Settings that follow from the others."""
TELLING = 0.0005
"""A smaller difference is none when it is shown: it rounds to 0.0 %."""
_CHECKPOINTING = ("activation_checkpointing", "checkpointed_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """One value of one setting."""

    setting: str
    value: Any
    behind: float | None
    """How much worse the best plan with it is than the one offered, 0.05 for 5 %; None where no plan with it is left."""
    reason: str


_UNMEASURED = "the stack was not measured with it: `txlplan hardware probe` does that, where there is a C++ compiler"


def standing(behind: float | None) -> str:
    """How a plan compares with the one that is offered: `5.6 % worse`, `7.3 % better`, `as good`, or `out`."""
    if behind is None:
        return "out"
    if abs(behind) < TELLING:
        return "as good"
    return f"{abs(behind):.1%} {'worse' if behind > 0 else 'better'}".replace("%", " %")


def settings_that_differ(one: Plan, other: Plan) -> str:
    """`micro_batch 8 (not 16), accumulation 2 (not 1)`."""
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in COLUMNS]
    return ", ".join(f"{name} {own} (not {its})" for name, own, its in pairs if own != its)


def rejections(
    workload: Workload, cluster: Cluster, stack: StackProfile, space: Space, found: Found, offered: int
) -> tuple[Rejection, ...]:
    """For every value of every setting that the plan offered does not have: its best plan, and what speaks against it."""
    offer = _Offer(
        workload=workload,
        cluster=cluster,
        stack=stack,
        plan=found.plans[offered],
        own=estimate(workload, cluster, stack, [found.plans[offered]]),
    )
    plain, said = found.plain, []
    if space.unmeasured_attention(workload, cluster, stack):
        said.append(Rejection(setting="attention", value="compiled", behind=None, reason=_UNMEASURED))
    for name in COLUMNS:
        if name in (*_DEPENDENT, *_CHECKPOINTING):
            continue
        column = plain.plans.columns[name]
        for stored in np.unique(column):
            value = _value(name, int(stored))
            if value == getattr(offer.plan, name):
                continue
            mine = plain.take(np.flatnonzero(column == stored))
            best = search(workload, cluster, stack, space, keep=1, known=mine)
            if not len(best.plans):
                reason = _why_none(best, checkpoints=space.kinds(workload) != ("none",))
                said.append(Rejection(setting=name, value=value, behind=None, reason=reason))
                continue
            other = best.plans[0]
            reason = f"{offer.against(other)} (with {settings_that_differ(other, offer.plan)})"
            said.append(Rejection(setting=name, value=value, behind=offer.behind(other), reason=reason))
    return (*said, *_checkpointing(offer, space))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """The plan that is offered, and what others are by comparison."""

    workload: Workload
    cluster: Cluster
    stack: StackProfile
    plan: Plan
    own: Estimates

    def of(self, other: Plan) -> Estimates:
        """The estimate of another plan, as the one candidate of its array."""
        return estimate(self.workload, self.cluster, self.stack, [other])

    def behind(self, other: Plan) -> float:
        """How much worse it is than the plan offered."""
        return behind(self.workload, self.cluster, self.of(other), self.own)

    def against(self, other: Plan) -> str:
        """What speaks against a plan: that it is not simpler, where it is no worse; else what makes it worse."""
        worse = self.behind(other)
        if worse <= -TELLING:
            return "better by its figures, but the ranges cannot tell, and what is offered is simpler"
        if worse < TELLING:
            return "as good, and not simpler"
        if self.workload.objective != "fastest" and other.n_devices > self.plan.n_devices:
            return f"occupies {other.n_devices} devices, not {self.plan.n_devices}"
        return self._worst_term(self.of(other)[0])

    def _worst_term(self, other: Estimate) -> str:
        """The term of a token's time that grows most: `all-reduce: 120 ms for the same tokens, not 3.00 ms`."""
        best = self.own[0]
        scale = (best.tokens_per_s.value * best.step_s.value) / (other.tokens_per_s.value * other.step_s.value)
        its = {term.name: term.value * scale for term in other.part("time")}
        own = {term.name: term.value for term in best.part("time")}
        name = max(its, key=lambda name: its[name] - own.get(name, 0.0))
        takes, instead = format_s(its[name]), format_s(own[name]) if own.get(name) else "none"
        if takes == instead:
            return "slower in many terms, in none by much"
        return f"{name}: {takes} for the same tokens, not {instead}"


def _value(name: str, stored: int) -> Any:
    if name in NAMES:
        return NAMES[name][stored]
    if name == "compile":
        return bool(stored)
    return None if stored == 0 and name == "threads" else stored


def _why_none(best: Found, *, checkpoints: bool) -> str:
    """Why no plan with a value is left; `checkpoints`: its checkpointed variants were looked at too."""
    plain, met = best.plain, best.limits.met
    if not met.any():
        return "misses the deadline, the budget or the power cap"
    if best.n_fitting:
        return "what fits misses the deadline, the budget or the power cap"
    over = format_bytes(float((plain.peak_memory_bytes - plain.capacity_bytes)[met].min()))
    return f"does not fit, checkpointed or not: {over} too many without" if checkpoints else f"does not fit: {over} too many"


def _eager(plan: Plan) -> Plan:
    """What can be checkpointed: graphs of kernels compute nothing again."""
    return replace(plan, compile=False) if plan.compile else plan


def _checkpointing(offer: _Offer, space: Space) -> list[Rejection]:
    """Other kinds of checkpointing of the plan that is offered, of all layers: time and memory are traded."""
    said = []
    for kind in space.kinds(offer.workload):
        if kind == offer.plan.activation_checkpointing:
            continue
        changed = replace(_eager(offer.plan), activation_checkpointing=kind, checkpointed_layers=None)
        other = offer.of(changed)[0]
        if not other.fits:
            over = format_bytes(other.peak_memory_bytes.value - other.capacity_bytes)
            said.append(Rejection(setting=_CHECKPOINTING[0], value=kind, behind=None, reason=f"does not fit: {over} too many"))
            continue
        saved = offer.own[0].peak_memory_bytes.value - other.peak_memory_bytes.value
        reason = f"saves {format_bytes(saved)} that are not needed" if saved >= 1 else offer.against(changed)
        said.append(Rejection(setting=_CHECKPOINTING[0], value=kind, behind=offer.behind(changed), reason=reason))
    return said
