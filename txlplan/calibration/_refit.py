"""Stacks with a newly fitted kernel model in the place of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.calibration._fit import fit_kernels
from txlplan.calibration._problem import Problem
from txlplan.hardware import KernelModel, StackProfile, nearest_stack


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedStacks:
    """A kernel model, and every stack of the runs it was fitted for, by id."""

    kernels: KernelModel
    stacks: Mapping[str, StackProfile]


def refit(problem: Problem, rows: npt.NDArray[np.bool_] | None = None) -> FittedStacks:
    """Fit to the runs of a problem, or those that `rows` [runs] names; only their devices count as fitted."""
    kernels = fit_kernels(problem, rows)
    chosen = np.ones(len(problem.runs), dtype=bool) if rows is None else rows
    devices = sorted({run.cluster.device.id for run, used in zip(problem.runs, chosen, strict=True) if used})
    profiles = (nearest_stack(name) for name in sorted({run.stack_name for run in problem.runs}))
    return FittedStacks(
        kernels=kernels,
        stacks={each.id: replace(each, kernels=kernels, fitted_devices=tuple(devices)) for each in profiles},
    )
