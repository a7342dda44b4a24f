"""Stacks with a newly fitted kernel model, and a newly fitted allocator, in the place of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.calibration._fit import fit_kernels
from txlplan.calibration._peaks import fit_reserved, with_reserved
from txlplan.calibration._problem import Problem
from txlplan.hardware import KernelModel, StackProfile, nearest_stack


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedStacks:
    """A kernel model, and every stack of the runs it was fitted for, by id."""

    kernels: KernelModel
    reserved: Mapping[tuple[str, str], float]
    """What the allocator holds, by stack ("": all others) and field."""
    stacks: Mapping[str, StackProfile]


def refit(problem: Problem, rows: npt.NDArray[np.bool_] | None = None) -> FittedStacks:
    """Fit to the runs of a problem, or those that `rows` [runs] names; only their devices count as fitted."""
    kernels = fit_kernels(problem, rows)
    chosen = np.ones(len(problem.runs), dtype=bool) if rows is None else rows
    devices = sorted({run.cluster.device.id for run, used in zip(problem.runs, chosen, strict=True) if used})
    profiles = (nearest_stack(name) for name in sorted({run.stack_name for run in problem.runs}))
    reserved = fit_reserved(problem.peaks, rows)
    fitted = (replace(with_reserved(each, reserved), kernels=kernels, fitted_devices=tuple(devices)) for each in profiles)
    return FittedStacks(kernels=kernels, reserved=reserved, stacks={each.id: each for each in fitted})
