"""Why no plan is left: limits that nothing meets which fits in memory, or memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from txlplan.choices import Objective
from txlplan.cost import Plans, estimate
from txlplan.errors import NoPlanFitsError
from txlplan.hardware import Cluster, StackProfile
from txlplan.planner._infeasible import memory_refusal
from txlplan.planner._objective import limited
from txlplan.planner._search import Found, search
from txlplan.planner._space import Space
from txlplan.units import format_s, format_usd, format_w
from txlplan.workload import Workload

_NEAREST = 1024
"""Plans with the least memory before checkpointing, among which a refusal names the nearest."""
_NO_DEADLINE_S = 1e300
"""What every plan meets, for a search that needs a deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limit:
    """A kind of limit, and what is said of it."""

    field: str
    """Of a workload."""
    figure: str
    """Of `Limited`."""
    objective: Objective
    """What makes that figure the least."""
    name: str
    least: str
    write: Callable[[float | None], str]
    hint: str


_LIMITS = (
    _Limit(
        field="deadline_s",
        figure="time_s",
        objective="fastest",
        name="the deadline",
        least="the fastest takes",
        write=format_s,
        hint="`txlplan compare` shows which systems do",
    ),
    _Limit(
        field="budget_usd",
        figure="cost_usd",
        objective="cheapest",
        name="the budget",
        least="the cheapest costs",
        write=format_usd,
        hint="`txlplan compare` ranks systems by cost",
    ),
    _Limit(
        field="power_cap_w",
        figure="power_w",
        objective="fewest-devices",
        name="the power cap",
        least="the least that fits draws",
        write=format_w,
        hint="raise --max-power, or choose a device that draws less",
    ),
)


def refusal(workload: Workload, cluster: Cluster, stack: StackProfile, space: Space, found: Found) -> NoPlanFitsError:
    """The error where a search found nothing: of the limits that cannot be met, alone or together, the fewest; or memory."""
    ask = _Ask(workload=workload, cluster=cluster, stack=stack, space=space, found=found)
    asked = [limit for limit in _LIMITS if getattr(workload, limit.field) is not None]
    if not asked or not len(ask.best((), "fastest")):
        return _memory(ask)
    missed = next(
        chosen
        for count in range(1, len(asked) + 1)
        for chosen in combinations(asked, count)
        if not len(ask.best(chosen, "fastest"))
    )
    *others, last = missed
    words = " and ".join(f"{limit.name} of {limit.write(getattr(workload, limit.field))}" for limit in missed)
    least = f"{last.least} {last.write(ask.least(others, last))}"
    if not others:
        return NoPlanFitsError(f"no plan on {cluster.system.id} meets {words}: {least}", hint=last.hint)
    within = " and ".join(limit.name for limit in others)
    return NoPlanFitsError(
        f"on {cluster.system.id}, {words} exclude each other: within {within}, {least}", hint="give up one of them"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask:
    """Searches of the same space with fewer limits."""

    workload: Workload
    cluster: Cluster
    stack: StackProfile
    space: Space
    found: Found

    def best(self, limits: Sequence[_Limit], objective: Objective) -> Plans:
        """The best plan of those that fit and meet some of the limits, or none."""
        kept = {limit.field for limit in limits}
        freed = {limit.field: None for limit in _LIMITS if limit.field not in kept}
        if objective == "fewest-devices" and "deadline_s" in freed:
            freed["deadline_s"] = _NO_DEADLINE_S  # type: ignore[assignment]
        tokens = self.workload.tokens or 1
        asked = replace(self.workload, objective=objective, tokens=tokens, **freed)  # type: ignore[arg-type]
        return search(asked, self.cluster, self.stack, self.space, keep=1, known=self.found.plain).plans[:1]

    def least(self, others: Sequence[_Limit], last: _Limit) -> float:
        """The least figure that `last` is about, within the other limits."""
        best = estimate(self.workload, self.cluster, self.stack, self.best(others, last.objective))
        return float(getattr(limited(self.workload, self.cluster, best), last.figure)[0])


def _memory(ask: _Ask) -> NoPlanFitsError:
    """Of the plans with the least memory before checkpointing, and their checkpointed variants, the nearest is named."""
    plain, space = ask.found.plain, ask.space
    nearest = plain.take(np.argsort(plain.peak_memory_bytes, kind="stable")[:_NEAREST])
    parts = [space.checkpointed(nearest)]
    if "none" in space.kinds(ask.workload):
        parts.insert(0, nearest.plans)
    plans = Plans.joined(parts)
    if not len(plans):
        plans = space.plans(ask.workload, ask.cluster, ask.stack)
    estimates = estimate(ask.workload, ask.cluster, ask.stack, plans)
    return memory_refusal(ask.workload, ask.cluster, ask.stack, estimates, ask.found.n_considered)
