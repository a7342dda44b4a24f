"""How far predictions are off where nothing was fitted: every group is predicted by a fit to all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from txlplan.calibration._problem import Problem
from txlplan.calibration._refit import refit
from txlplan.cost._op_stream import FloatArray
from txlplan.hardware import Spread, StackProfile
from txlplan.validation import Published, Row, Unscored, predict

GROUPS: Mapping[str, Callable[[Published], str]] = {
    "device": lambda run: run.cluster.device.id,
    "model": lambda run: run.workload.model.id,
    "stack": lambda run: run.stack_name,
}
"""What can be left out, and what a run belongs to."""
_Z_80 = 1.2816


def leave_out(problem: Problem, group: str) -> list[Row | Unscored]:
    """Every run of a problem, in order, predicted by a fit that saw no run of its own group.

    The interval of a group has the spread that the other groups' residuals ask for, each of them left out in its turn.
    """
    names = np.array([GROUPS[group](run) for run in problem.runs])
    fitted = {name: refit(problem, names != name) for name in sorted(set(names))}
    residuals = np.empty(len(names))
    for name, found in fitted.items():
        own = names == name
        residuals[own] = np.log(problem.tokens_per_s(found.kernels)[own] / problem.measured[own])
    rows: list[Row | Unscored] = [Unscored(id=run.id, reason="not predicted") for run in problem.runs]
    for name, found in fitted.items():
        own = np.flatnonzero(names == name)
        spread = _spread(residuals, names, name)
        stacks = {each: _with_spread(stack, spread) for each, stack in found.stacks.items()}
        for place, row in zip(own, predict([problem.runs[index] for index in own], stacks), strict=True):
            rows[place] = replace(row, extrapolated=True) if isinstance(row, Row) else row
    return rows


def _spread(residuals: FloatArray, names: np.ndarray[tuple[int], np.dtype[np.str_]], name: str) -> float:
    """Deviation of the normal whose 80 % interval holds 80 % of the other groups' residuals, each group weighing alike."""
    others = names != name
    sizes = {other: int((names == other).sum()) for other in set(names)}
    weight = np.array([1.0 / sizes[other] for other in names[others]])
    size = np.abs(residuals[others])
    order = np.argsort(size, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return float(np.interp(0.8, share, size[order])) / _Z_80


def _with_spread(stack: StackProfile, time_log_sd: float) -> StackProfile:
    memory = stack.spread.memory_log_sd if stack.spread else 0.1
    spread = Spread(
        time_log_sd=time_log_sd,
        memory_log_sd=memory,
        source="residuals of the other groups, each left out in its turn",
        extrapolated_time_log_sd=time_log_sd,
        extrapolated_memory_log_sd=memory,
    )
    return replace(stack, spread=spread)
