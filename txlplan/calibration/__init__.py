"""Fitting a kernel model to measured throughputs, and how far it is off where it was not fitted."""

from txlplan.calibration._fit import fit_kernels
from txlplan.calibration._leave_out import GROUPS, leave_out
from txlplan.calibration._problem import Problem
from txlplan.calibration._refit import FittedStacks, refit

__all__ = ["GROUPS", "FittedStacks", "Problem", "fit_kernels", "leave_out", "refit"]
