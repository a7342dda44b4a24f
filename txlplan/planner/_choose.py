"""The best plan of a space: every plan is costed, so that the choice is exact within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost import Estimates, estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.planner._infeasible import memory_refusal
from txlplan.planner._money import Totals, rent_usd_per_s, totals
from txlplan.planner._space import Space
from txlplan.units import format_s, format_usd
from txlplan.workload import Workload

_RUNNERS_UP = 5


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
    runners_up: tuple[RunnerUp, ...]
    n_costed: int
    n_fitting: int
    """Of them, how many fit in memory."""


def plan(workload: Workload, cluster: Cluster, stack: StackProfile, *, space: Space | None = None) -> Choice:
    """The plan of `space` that is best by `workload.objective` among those that fit memory, deadline and budget.

    Plans whose objective is equal are ordered by simplicity: less checkpointing, accumulation, fewer devices and threads.
    Raises NoPlanFitsError (memory, deadline or budget), InputError when the objective needs a figure that is unknown.
    """
    plans = (space or Space()).plans(workload, cluster)
    estimates = estimate(workload, cluster, stack, plans)
    fitting = np.flatnonzero(estimates.fits)
    if fitting.size == 0:
        raise memory_refusal(workload, cluster, stack, plans, estimates)
    objective = _objective(workload, cluster, plans, estimates)
    allowed = _within_limits(workload, cluster, plans, estimates, fitting)
    ranked = sorted(allowed.tolist(), key=lambda index: (objective[index], _complexity(plans[index])))
    best = ranked[0]
    return Choice(
        plan=plans[best],
        estimate=estimates[best],
        totals=totals(workload, cluster, plans[best], estimates[best]),
        runners_up=tuple(_runner_up(plans, estimates, objective, best, index) for index in ranked[1 : _RUNNERS_UP + 1]),
        n_costed=len(plans),
        n_fitting=int(fitting.size),
    )


def _objective(workload: Workload, cluster: Cluster, plans: Sequence[Plan], estimates: Estimates) -> npt.NDArray[np.float64]:
    """What is to be least, per token, [candidates]."""
    seconds = 1.0 / estimates.tokens_per_s
    if workload.objective == "fastest":
        return seconds
    if workload.objective == "cheapest":
        rents = [rent_usd_per_s(cluster, candidate) for candidate in plans]
        if rents[0] is None:
            raise InputError(
                f"objective 'cheapest' needs a price, and {cluster.system.id} has no on-demand one",
                hint="add one to the system profile, or choose --objective fastest",
            )
        dollars: npt.NDArray[np.float64] = seconds * np.array(rents, dtype=float)
        return dollars
    if estimates.energy_j_per_token is None:
        raise InputError(
            f"objective 'least-energy' needs the rated power of {cluster.device.name}, which is unknown",
            hint="add power to the device profile, or choose --objective fastest",
        )
    return estimates.energy_j_per_token


def _within_limits(
    workload: Workload, cluster: Cluster, plans: Sequence[Plan], estimates: Estimates, fitting: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Those of the fitting plans that meet the deadline and the budget."""
    if workload.deadline_s is None and workload.budget_usd is None:
        return fitting
    if workload.tokens is None:
        raise InputError("a deadline or a budget needs the number of tokens", hint="state it with --tokens")
    time_s = workload.tokens / estimates.tokens_per_s[fitting]
    allowed = fitting
    if workload.deadline_s is not None:
        allowed = allowed[time_s <= workload.deadline_s]
        if allowed.size == 0:
            raise NoPlanFitsError(
                f"no plan on {cluster.system.id} meets the deadline of {format_s(workload.deadline_s)}: "
                f"the fastest takes {format_s(float(time_s.min()))}",
                hint="`txlplan compare` shows which systems do",
            )
    if workload.budget_usd is not None:
        allowed = _within_budget(workload, cluster, plans, estimates, allowed)
    return allowed


def _within_budget(
    workload: Workload, cluster: Cluster, plans: Sequence[Plan], estimates: Estimates, allowed: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    assert workload.tokens is not None
    assert workload.budget_usd is not None
    if rent_usd_per_s(cluster, plans[0]) is None:
        raise InputError(f"a budget needs a price, and {cluster.system.id} has no on-demand one")
    rent = np.array([rent_usd_per_s(cluster, plans[index]) for index in allowed], dtype=float)
    cost = workload.tokens / estimates.tokens_per_s[allowed] * rent
    if (cost > workload.budget_usd).all():
        raise NoPlanFitsError(
            f"no plan on {cluster.system.id} stays within {format_usd(workload.budget_usd)}: "
            f"the cheapest costs {format_usd(float(cost.min()))}",
            hint="`txlplan compare` ranks systems by cost",
        )
    within: npt.NDArray[np.int64] = allowed[cost <= workload.budget_usd]
    return within


def _complexity(candidate: Plan) -> tuple[int, ...]:
    checkpointed = int(candidate.activation_checkpointing != "none")
    return checkpointed, candidate.accumulation, candidate.n_devices, candidate.threads or 0


def _runner_up(
    plans: Sequence[Plan], estimates: Estimates, objective: npt.NDArray[np.float64], best: int, index: int
) -> RunnerUp:
    names = ("precision", "micro_batch", "accumulation", "activation_checkpointing", "data_parallel", "threads")
    pairs = [(name, getattr(plans[index], name), getattr(plans[best], name)) for name in names]
    return RunnerUp(
        plan=plans[index],
        estimate=estimates[index],
        behind=float(objective[index] / objective[best] - 1.0),
        difference=", ".join(f"{name} {own} (not {other})" for name, own, other in pairs if own != other),
    )
