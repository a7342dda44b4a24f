"""How far predictions are off where nothing was fitted: every group is predicted by a fit to all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from txlplan.calibration._fit import fit_kernels
from txlplan.calibration._problem import Problem
from txlplan.calibration._refit import refit
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._ranges import TIME_LOG_SD, Z_80, memory_log_sd
from txlplan.hardware import KernelModel, Spread, StackProfile
from txlplan.validation import Published, Row, Unscored, predict

GROUPS: Mapping[str, Callable[[Published], str]] = {
    "device": lambda run: run.cluster.device.id,
    "model": lambda run: run.workload.model.id,
    "stack": lambda run: run.stack_name,
}
"""What can be left out, and what a run belongs to."""
Names = np.ndarray[tuple[int], np.dtype[np.str_]]
"""Group of each run, [runs]."""


def leave_out(problem: Problem, group: str) -> list[Row | Unscored]:
    """Every run of a problem, in order, predicted by a fit that saw no run of its own group.

    The interval of a group has the spread that the other groups ask for, each left out beside it: nothing of a group moves
    its own figures or their interval.
    """
    names = np.array([GROUPS[group](run) for run in problem.runs])
    fitted = {name: refit(problem, names != name) for name in sorted(set(names))}
    residuals = _nested_residuals(problem, names, {name: found.kernels for name, found in fitted.items()})
    rows: list[Row | Unscored] = [Unscored(id=run.id, reason="not predicted") for run in problem.runs]
    for name, found in fitted.items():
        own = np.flatnonzero(names == name)
        spread = _spread(residuals[name], names, name)
        stacks = {each: _with_spread(stack, spread) for each, stack in found.stacks.items()}
        for place, row in zip(own, predict([problem.runs[index] for index in own], stacks), strict=True):
            rows[place] = replace(row, extrapolated=True) if isinstance(row, Row) else row
    return rows


def _nested_residuals(problem: Problem, names: Names, kernels: Mapping[str, KernelModel]) -> dict[str, FloatArray]:
    """For each group, log(predicted / measured) of the runs of all others, by fits that saw neither group. [runs] each"""
    residuals = {name: np.full(len(names), np.nan) for name in kernels}
    for first, second in combinations(kernels, 2):
        rows = (names != first) & (names != second)
        if not rows.any():
            continue
        found = problem.tokens_per_s(fit_kernels(problem, rows))
        for name, other in ((first, second), (second, first)):
            own = names == other
            residuals[name][own] = np.log(found[own] / problem.measured[own])
    return residuals


def _spread(residuals: FloatArray, names: Names, name: str) -> float:
    """Deviation of the normal whose 80 % interval holds 80 % of the residuals of all other groups, each weighing alike.

    Those residuals are of fits that lack one group more than the fit they stand for. That is the allowance for how few
    groups there are; no other is made.
    """
    others = (names != name) & ~np.isnan(residuals)
    if not others.any():
        return TIME_LOG_SD
    sizes = {other: int((names == other).sum()) for other in set(names[others])}
    weight = np.array([1.0 / sizes[other] for other in names[others]])
    size = np.abs(residuals[others])
    order = np.argsort(size, kind="stable")
    return float(np.interp(0.8, np.cumsum(weight[order]) / weight.sum(), size[order])) / Z_80


def _with_spread(stack: StackProfile, time_log_sd: float) -> StackProfile:
    memory = memory_log_sd(stack, extrapolated=True)
    spread = Spread(
        time_log_sd=time_log_sd,
        memory_log_sd=memory,
        source="residuals of the other groups, each left out beside it",
        extrapolated_time_log_sd=time_log_sd,
        extrapolated_memory_log_sd=memory,
    )
    return replace(stack, spread=spread)
