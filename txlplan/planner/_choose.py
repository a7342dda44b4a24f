"""The best plan of a space, and the one that is offered: a simpler one, where the ranges cannot tell them apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.choices import Objective
from txlplan.cost import Estimates, Plans, estimate
from txlplan.cost._ranges import time_log_sd
from txlplan.errors import NoPlanFitsError
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.planner._explain import Rejection, rejections, settings_that_differ
from txlplan.planner._infeasible import memory_refusal
from txlplan.planner._money import Totals, totals
from txlplan.planner._objective import limited, limits_refusal
from txlplan.planner._probability import probability_within
from txlplan.planner._search import Found, search
from txlplan.planner._space import Space
from txlplan.workload import Workload

_EVEN = 0.2533
"""Normal quantile of 0.6: a plan that is better with no more than that probability is not told apart."""
_SHARED_ERROR = 0.5
"""Share of the variance of their errors that two plans on one cluster have in common; assumed, as for candidates of one stack
(profiles/economics). Two plans then differ by √(2 (1 − share)) of the spread."""
_NEAREST = 1024
"""Plans with the least memory before checkpointing, among which a refusal names the nearest."""
_NO_DEADLINE_S = 1e300
"""What every plan meets, for a search that needs a deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerUp:
    """A plan that lost, and what separates it from the best."""

    plan: Plan
    estimate: Estimate
    behind: float
    """Objective over the best one's, less one: 0.05 is 5 % worse."""
    difference: str
    """The settings that differ: `micro_batch 8 (not 16), accumulation 2 (not 1)`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The plan offered."""

    plan: Plan
    estimate: Estimate
    totals: Totals
    optimum: RunnerUp | None
    """The best plan by its figures, where a simpler one is offered instead (its `behind` is negative)."""
    runners_up: tuple[RunnerUp, ...]
    n_considered: int
    """Plans of the space."""
    n_costed: int
    """Of them costed; the others are proven to be worse."""
    n_fitting: int
    """Of those costed, how many fit in memory."""
    runnable: bool
    """Whether the engine of this version executes the plan."""
    deadline_probability: float | None = None
    """That the deadline is met, by the range of the time; None without one."""
    budget_probability: float | None = None
    """That the budget is kept, by the range of the cost; None without one."""
    rejections: tuple[Rejection, ...] = ()
    """For every other value of a setting, why it was not chosen; where that was asked for."""


def plan(
    workload: Workload,
    cluster: Cluster,
    stack: StackProfile,
    *,
    space: Space | None = None,
    simplify: bool = True,
    explain: bool = False,
    runners_up: int = 5,
    known: Estimates | None = None,
) -> Choice:
    """The plan of `space` that is best by `workload.objective` among those that fit memory and meet every limit.

    Plans whose objective is equal are ordered by simplicity: less checkpointing, accumulation, fewer devices and threads. With
    `simplify`, a plan that engages fewer mechanisms is offered where the best one is better with a probability of no more than
    60 %, by the ranges; not with a deadline or a budget, which the simpler one may miss where the best one meets it. `known`:
    estimates of the plans of the space without checkpointing, where they are there already.
    Raises NoPlanFitsError (memory or a limit), InputError when the objective needs an unknown figure.
    """
    space = space or Space()
    free = workload.deadline_s is None and workload.budget_usd is None
    slack = _slack(cluster, stack) if simplify and free and not space.bounded(workload, cluster) else 1.0
    found = search(workload, cluster, stack, space, keep=runners_up + 1, slack=slack, known=known)
    if not len(found.plans):
        raise _refusal(workload, cluster, stack, space, found)
    offered = _simplest(found, slack)
    choice = choice_of(workload, cluster, stack, found, offered=offered, runners_up=runners_up)
    if not explain:
        return choice
    return replace(choice, rejections=rejections(workload, cluster, stack, found, offered, space.kinds(workload)))


def choice_of(
    workload: Workload, cluster: Cluster, stack: StackProfile, found: Found, *, offered: int = 0, runners_up: int = 0
) -> Choice:
    """One of the plans that a search found, as it is offered."""
    chosen = found.plans[offered]
    of_it = estimate(workload, cluster, stack, [chosen])[0]
    figures = totals(workload, cluster, chosen, of_it)
    others = [index for index in range(len(found.plans)) if index != offered][:runners_up]

    def other(index: int) -> RunnerUp:
        """One of those that are not offered, beside the one that is."""
        it = found.plans[index]
        return RunnerUp(
            plan=it,
            estimate=estimate(workload, cluster, stack, [it])[0],
            behind=float(found.objective[index] / found.objective[offered] - 1.0),
            difference=settings_that_differ(it, chosen),
        )

    return Choice(
        plan=chosen,
        estimate=of_it,
        totals=figures,
        optimum=other(0) if offered else None,
        runners_up=tuple(other(index) for index in others),
        n_considered=found.n_considered,
        n_costed=found.n_costed,
        n_fitting=found.n_fitting,
        runnable=chosen.runnable,
        deadline_probability=probability_within(figures.time_s, workload.deadline_s),
        budget_probability=probability_within(figures.cost_usd, workload.budget_usd),
    )


def best_by_figures(choice: Choice, workload: Workload, cluster: Cluster) -> Choice:
    """The same with the best plan by its figures, where a simpler one is offered in its place. Without runners-up."""
    best = choice.optimum
    if best is None:
        return choice
    figures = totals(workload, cluster, best.plan, best.estimate)
    return replace(
        choice,
        plan=best.plan, estimate=best.estimate, totals=figures, optimum=None, runners_up=(), runnable=best.plan.runnable,
    )  # fmt: skip


def _slack(cluster: Cluster, stack: StackProfile) -> float:
    """Objective over the best one's up to which a plan is not told apart from the best."""
    known = cluster.device.id in (*stack.fitted_devices, stack.measured_device)
    sd = time_log_sd(stack, extrapolated=not known)
    return math.exp(_EVEN * sd * math.sqrt(2 * (1 - _SHARED_ERROR)))


def _simplest(found: Found, slack: float) -> int:
    """Of the plans that are not told apart, the one with fewest mechanisms, and of these the best."""
    if slack == 1.0:
        return 0
    even = np.flatnonzero(found.objective <= slack * found.objective[0])
    mechanisms = _mechanisms(found.plans.take(even))
    return int(even[np.lexsort((found.objective[even], mechanisms))[0]])


def _mechanisms(plans: Plans) -> npt.NDArray[np.int64]:
    """What a plan engages beside data parallelism, precision and batch, [plans]."""
    engaged = [getattr(plans, f"{axis}_parallel") > 1 for axis in ("tensor", "pipeline", "context")]
    engaged += [plans.virtual_stages > 1, plans.zero_stage > 0, plans.zero_stage > 1, plans.zero_stage > 2]
    engaged += [plans.activation_checkpointing != 0, plans.checkpointed_layers != 0]
    engaged += [plans.offload != 0, plans.optimizer_precision != 0]
    counted: npt.NDArray[np.int64] = np.sum(engaged, axis=0)
    return counted


def _fitting(workload: Workload, cluster: Cluster, stack: StackProfile, space: Space, found: Found) -> Estimates:
    """Of the plans that fit with checkpointing alone, the fastest, the cheapest and those of the fewest devices."""
    free = replace(workload, tokens=1, deadline_s=_NO_DEADLINE_S, budget_usd=None, power_cap_w=None)
    objectives: tuple[Objective, ...] = ("fastest", "fewest-devices", *(("cheapest",) if cluster.system.prices else ()))
    asked = [replace(free, objective=objective) for objective in objectives]
    plans = [search(one, cluster, stack, space, keep=_NEAREST, known=found.plain).plans for one in asked]
    return estimate(workload, cluster, stack, Plans.joined(plans))


def _refusal(workload: Workload, cluster: Cluster, stack: StackProfile, space: Space, found: Found) -> NoPlanFitsError:
    """Why nothing is left: a limit that no plan meets that would fit, or memory."""
    plain = found.plain
    if not found.limits.met.any() or (plain.fits.any() and not (plain.fits & found.limits.met).any()):
        fits = plain.fits if plain.fits.any() else np.ones(len(plain), dtype=bool)
        return limits_refusal(workload, cluster, found.limits, fits)
    if found.n_fitting:
        fitting = _fitting(workload, cluster, stack, space, found)
        return limits_refusal(workload, cluster, limited(workload, cluster, fitting), fitting.fits)
    nearest = plain.plans.take(np.argsort(plain.peak_memory_bytes, kind="stable")[:_NEAREST])
    parts = [space.checkpointed(nearest, workload)]
    if "none" in space.kinds(workload):
        parts.insert(0, nearest)
    plans = Plans.joined(parts)
    if not len(plans):
        plans = space.plans(workload, cluster, stack)
    estimates = estimate(workload, cluster, stack, plans)
    return memory_refusal(workload, cluster, stack, estimates, found.n_considered)
