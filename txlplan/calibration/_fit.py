"""A robust, regularised fit of a kernel model: least squares of log(predicted / measured), with priors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from txlplan.calibration._priors import PRIORS
from txlplan.calibration._problem import Problem
from txlplan.cost._op_stream import FloatArray
from txlplan.hardware import KernelModel

_ERROR_SD = 0.05
"""Relative error of a prediction that a residual of 1 stands for; larger ones weigh less and less (soft L1)."""
_EVALUATIONS = 8


def fit_kernels(problem: Problem, rows: npt.NDArray[np.bool_] | None = None) -> KernelModel:
    """The kernel model that best explains the runs of a problem, or those that `rows` [runs] names."""
    from scipy.optimize import least_squares

    chosen = np.ones(len(problem.runs), dtype=bool) if rows is None else rows
    prior = np.log([value for value, _ in PRIORS.values()])
    spread = np.array([log_sd for _, log_sd in PRIORS.values()])

    def residuals(logs: FloatArray) -> FloatArray:
        ratio = problem.tokens_per_s(_model(logs))[chosen] / problem.measured[chosen]
        return np.concatenate([np.log(ratio) / _ERROR_SD, (logs - prior) / spread])

    return _model(least_squares(residuals, prior, loss="soft_l1", max_nfev=_EVALUATIONS).x)


def _model(logs: FloatArray) -> KernelModel:
    return KernelModel(**{name: float(np.exp(log)) for name, log in zip(PRIORS, logs, strict=True)})
