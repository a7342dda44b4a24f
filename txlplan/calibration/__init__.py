"""Fitting a kernel model to measured throughputs, and how far it is off where it was not fitted."""

from txlplan.calibration._fit import fit_kernels
from txlplan.calibration._leave_out import GROUPS, leave_out
from txlplan.calibration._problem import Problem
from txlplan.calibration._products import LEFT_OUT, ProductModel, Products, ProductScore, read_products, score_products
from txlplan.calibration._refit import FittedStacks, refit

__all__ = [
    "GROUPS",
    "LEFT_OUT",
    "FittedStacks",
    "Problem",
    "ProductModel",
    "ProductScore",
    "Products",
    "fit_kernels",
    "leave_out",
    "read_products",
    "refit",
    "score_products",
]
