"""The best plan of a space, and the one that is offered: a simpler one, where the ranges cannot tell them apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.cost import Estimates, Plans, estimate
from txlplan.cost._ranges import Z_80, time_log_sd
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.planner._explain import Rejection, rejections, settings_that_differ
from txlplan.planner._money import Totals, totals
from txlplan.planner._objective import behind, limited
from txlplan.planner._probability import probability_within
from txlplan.planner._refusal import refusal
from txlplan.planner._search import Found, search
from txlplan.planner._space import Space
from txlplan.workload import Workload

_EVEN = 0.2533
"""Normal quantile of 0.6: a plan that is better with no more than that probability is not told apart."""
_SHARED_ERROR = 0.5
"""Share of the variance of their errors that two plans on one cluster have in common; assumed, as for candidates of one stack
(profiles/economics). Two plans then differ by √(2 (1 − share)) of the spread."""
_TIMED = ("deadline_s", "budget_usd")
"""Limits of a workload whose figures have the range of the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerUp:
    """A plan that lost, and what separates it from the best."""

    plan: Plan
    estimate: Estimate
    behind: float
    """Objective over the best one's, less one: 0.05 is 5 % worse; of as few devices, time over the best one's."""
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
    60 %, by the ranges; with a deadline or a budget only one that meets it at the high end of its range, and with the fewest
    devices none. `known`: estimates of the plans of the space without checkpointing, where they are there already.
    Raises NoPlanFitsError (memory or a limit), InputError when the objective needs an unknown figure.
    """
    space = space or Space()
    even = simplify and workload.objective != "fewest-devices" and not space.bounded(workload, cluster)
    slack = _slack(cluster, stack) if even else 1.0
    found = search(workload, cluster, stack, space, keep=runners_up + 1, slack=slack, known=known)
    if not len(found.plans):
        raise refusal(workload, cluster, stack, space, found)
    offered = 0 if slack == 1.0 else _simplest(workload, cluster, stack, found, slack)
    choice = choice_of(workload, cluster, stack, found, offered=offered, runners_up=runners_up)
    if not explain:
        return choice
    return replace(choice, rejections=rejections(workload, cluster, stack, space, found, offered))


def choice_of(
    workload: Workload, cluster: Cluster, stack: StackProfile, found: Found, *, offered: int = 0, runners_up: int = 0
) -> Choice:
    """One of the plans that a search found, as it is offered."""
    chosen = found.plans[offered]
    mine = estimate(workload, cluster, stack, [chosen])
    of_it = mine[0]
    figures = totals(workload, cluster, chosen, of_it)
    others = [index for index in range(len(found.plans)) if index != offered][:runners_up]

    def other(index: int) -> RunnerUp:
        """One of those that are not offered, beside the one that is."""
        it = found.plans[index]
        its = estimate(workload, cluster, stack, [it])
        return RunnerUp(
            plan=it,
            estimate=its[0],
            behind=behind(workload, cluster, its, mine),
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
    return math.exp(_EVEN * _log_sd(cluster, stack) * math.sqrt(2 * (1 - _SHARED_ERROR)))


def _log_sd(cluster: Cluster, stack: StackProfile) -> float:
    """Of a time, where the plan has nothing that makes it less certain."""
    known = cluster.device.id in (*stack.fitted_devices, stack.measured_device)
    return time_log_sd(stack, extrapolated=not known)


def _simplest(workload: Workload, cluster: Cluster, stack: StackProfile, found: Found, slack: float) -> int:
    """Of the plans that are not told apart and surely meet the limits, the one with fewest mechanisms, the best of these."""
    even = np.flatnonzero(found.objective <= slack * found.objective[0])
    plans = found.plans.take(even)
    longest = math.exp(Z_80 * _log_sd(cluster, stack))
    stricter = {name: limit / longest for name in _TIMED if (limit := getattr(workload, name)) is not None}
    likely = np.ones(even.size, dtype=bool)
    if stricter:
        asked = replace(workload, **stricter)
        likely = limited(asked, cluster, estimate(workload, cluster, stack, plans)).met
    order = np.lexsort((found.objective[even], _mechanisms(plans)))
    chosen = (
        place for place in order if even[place] == 0 or (likely[place] and _surely(workload, cluster, stack, plans[place]))
    )
    return int(even[next(chosen)])


def _surely(workload: Workload, cluster: Cluster, stack: StackProfile, candidate: Plan) -> bool:
    """Whether the high ends of its time and cost meet the limits."""
    if all(getattr(workload, name) is None for name in _TIMED):
        return True
    figures = totals(workload, cluster, candidate, estimate(workload, cluster, stack, [candidate])[0])
    pairs = ((figures.time_s, workload.deadline_s), (figures.cost_usd, workload.budget_usd))
    return all(limit is None or (figure is not None and figure.high <= limit) for figure, limit in pairs)


def _mechanisms(plans: Plans) -> npt.NDArray[np.int64]:
    """What a plan engages beside data parallelism, precision and batch, [plans]."""
    engaged = [getattr(plans, f"{axis}_parallel") > 1 for axis in ("tensor", "pipeline", "context")]
    engaged += [plans.virtual_stages > 1, plans.zero_stage > 0, plans.zero_stage > 1, plans.zero_stage > 2]
    engaged += [plans.activation_checkpointing != 0, plans.checkpointed_layers != 0]
    engaged += [plans.offload != 0, plans.optimizer_precision != 0]
    counted: npt.NDArray[np.int64] = np.sum(engaged, axis=0)
    return counted
