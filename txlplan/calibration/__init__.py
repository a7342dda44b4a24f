"""Fitting profiles: a kernel model to published throughputs, a few factors of a stack to what runs took; and how far that is
off where it was not fitted."""

from txlplan.calibration._factors import MEMORY, TIME
from txlplan.calibration._fit import fit_kernels
from txlplan.calibration._leave_out import GROUPS, leave_out
from txlplan.calibration._observations import Observation, Observations, enough, from_published, from_records
from txlplan.calibration._problem import Problem
from txlplan.calibration._products import LEFT_OUT, ProductModel, Products, ProductScore, read_products, score_products
from txlplan.calibration._refit import FittedStacks, refit
from txlplan.calibration._scalars import Calibration, Part, calibrate

__all__ = [
    "GROUPS",
    "LEFT_OUT",
    "MEMORY",
    "TIME",
    "Calibration",
    "FittedStacks",
    "Observation",
    "Observations",
    "Part",
    "Problem",
    "ProductModel",
    "ProductScore",
    "Products",
    "calibrate",
    "enough",
    "fit_kernels",
    "from_published",
    "from_records",
    "leave_out",
    "read_products",
    "refit",
    "score_products",
]
