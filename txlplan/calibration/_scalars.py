"""Calibrating a stack to observations: a few physical factors, each with a prior of one, by a robust fit.

The residual is log(predicted / measured); factors are fitted on a logarithmic scale by Gauss-Newton steps with Huber
weights and normal priors (so that what the observations do not tell apart stays at one, and the rest moves the less the more
observations scatter about the fit). Of several sets of factors that one is taken by which each observation is best predicted
from the others. Time and memory are fitted apart, and each is kept only where observations that were left out, of that choice
too, are predicted better than before.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.calibration._factors import MEMORY, TIME, Scalar, time_sets
from txlplan.calibration._observations import Observation, predicted
from txlplan.cost._op_stream import FloatArray
from txlplan.errors import BarMissedError
from txlplan.hardware import Spread, StackProfile

_ERROR_SD = 0.04
"""Relative error at least that a residual of 1 stands for; beyond it an observation weighs less (Huber)."""
_SD_OVER_MEDIAN = 1.4826
"""Standard deviation of a normal over its median absolute deviation."""
_DIFFERENCE = 0.02
"""Step of the finite differences, in logarithms."""
_ROUNDS = 2
_REWEIGHTED = 5
_LEAST_SD = 0.03
"""Spread below which no stack is stated: a machine's own drift from day to day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Time or memory: errors are mean absolute relative ones, of tokens per second or of peak bytes."""

    factors: Mapping[str, float]
    """What each scalar was multiplied by."""
    before: float
    after: float
    left_out: float
    """Each observation predicted by a fit to the others."""
    log_sd: float
    """Spread of log(predicted / measured) of the left out."""

    @property
    def better(self) -> bool:
        """Whether what was left out is predicted better than before."""
        return bool(self.factors) and self.left_out < self.before


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A stack as calibrated, and what that is worth."""

    stack: StackProfile
    n: int
    time: Part
    memory: Part | None
    """None: no observation has a peak, or the stack has nothing to fit."""
    scalars: int
    """How many were fitted and kept."""


def calibrate(stack: StackProfile, observations: Sequence[Observation], *, told: str) -> Calibration:
    """Fit and check; `told` says where the observations come from.

    Raises BarMissedError where neither time nor memory of what was left out is predicted better than before.
    """
    time = _fitted(stack, observations, time_sets({each.workload.task for each in observations}), 0)
    with_peak = [each for each in observations if each.peak_memory_bytes]
    memory = _fitted(stack, with_peak, [MEMORY], 1) if len(with_peak) == len(observations) else None
    if memory is not None and not memory.factors:
        memory = None
    kept = [(part, scalars) for part, scalars in ((time, TIME), (memory, MEMORY)) if part is not None and part.better]
    if not kept:
        raise BarMissedError(
            f"a fit to {len(observations)} observations predicts those left out of it no better: "
            f"tokens/s {time.left_out:.1%}, before {time.before:.1%}"
            + (f"; peak memory {memory.left_out:.1%}, before {memory.before:.1%}" if memory else ""),
            hint="nothing was written; more observations of more different shapes may say more",
        )
    found = stack
    for part, scalars in kept:
        found = _applied(found, scalars, part.factors)
    return Calibration(
        stack=_labelled(found, time, memory, told),
        n=len(observations),
        time=time,
        memory=memory,
        scalars=sum(len(part.factors) for part, _ in kept),
    )


def _fitted(stack: StackProfile, observations: Sequence[Observation], sets: Sequence[Mapping[str, Scalar]], which: int) -> Part:
    """By the set that predicts what is left out best, with what was left out of that choice and of the fit predicted."""
    applying = [{name: scalar for name, scalar in each.items() if scalar.applies(stack)} for each in sets]
    measured = np.log([(each.tokens_per_s, each.peak_memory_bytes or 0.0)[which] for each in observations])
    start = _logs(stack, observations, which) - measured
    fits = [_fit(stack, observations, scalars, start, measured, which) for scalars in applying]
    everything = np.arange(len(observations))
    left_out = []
    for index in everything:
        others = everything[everything != index]
        chosen = _best(fits, others)
        moved = _applied(stack, chosen.scalars, _factors(chosen.scalars, chosen.refitted(others)))
        left_out.append(float(_logs(moved, [observations[int(index)]], which)[0] - measured[index]))
    best = _best(fits, everything)
    return Part(
        factors=_factors(best.scalars, best.logs),
        before=_mape(start),
        after=_mape(best.residual),
        left_out=_mape(np.array(left_out)),
        log_sd=float(np.sqrt(np.mean(np.square(left_out)))),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """A set of factors fitted to all observations, about which residuals are taken as linear."""

    scalars: Mapping[str, Scalar]
    logs: FloatArray
    residual: FloatArray
    slopes: FloatArray

    def refitted(self, rows: npt.NDArray[np.int64]) -> FloatArray:
        """Logarithms of the factors by some observations."""
        return _step(self.residual[rows], self.slopes[rows], self.logs, self.scalars, at=self.logs)

    def left_out(self, rows: npt.NDArray[np.int64]) -> float:
        """Mean error of each of some observations, by a fit to the others of them."""
        moved = [self.refitted(rows[rows != row]) - self.logs for row in rows]
        return _mape(np.array([self.residual[row] + self.slopes[row] @ each for row, each in zip(rows, moved, strict=True)]))


def _best(fits: Sequence[_Fit], rows: npt.NDArray[np.int64]) -> _Fit:
    return min(fits, key=lambda fit: fit.left_out(rows))


def _fit(
    stack: StackProfile,
    observations: Sequence[Observation],
    scalars: Mapping[str, Scalar],
    start: FloatArray,
    measured: FloatArray,
    which: int,
) -> _Fit:
    logs, residual, slopes = np.zeros(len(scalars)), start, np.zeros((len(observations), len(scalars)))
    for _ in range(_ROUNDS if scalars else 0):
        slopes = _slopes(stack, observations, scalars, logs, residual + measured, which)
        logs = _step(residual, slopes, logs, scalars, at=logs)
        residual = _logs(_applied(stack, scalars, _factors(scalars, logs)), observations, which) - measured
    return _Fit(scalars=scalars, logs=logs, residual=residual, slopes=slopes)


def _slopes(
    stack: StackProfile,
    observations: Sequence[Observation],
    scalars: Mapping[str, Scalar],
    logs: FloatArray,
    here: FloatArray,
    which: int,
) -> FloatArray:
    """d log(predicted) / d log(factor) at some factors, where predictions are `here`. [observations, scalars]"""
    at = _applied(stack, scalars, _factors(scalars, logs))
    nudge = float(np.exp(_DIFFERENCE))
    columns = [_logs(scalar.apply(at, nudge), observations, which) - here for scalar in scalars.values()]
    return np.stack(columns, axis=1) / _DIFFERENCE


def _step(
    residual: FloatArray, slopes: FloatArray, logs: FloatArray, scalars: Mapping[str, Scalar], at: FloatArray
) -> FloatArray:
    """Where residuals that are linear about `at` are least, weighed and held by the priors; `logs` is where weights start."""
    precision = np.diag([scalar.prior_sd**-2 for scalar in scalars.values()])
    for _ in range(_REWEIGHTED if len(scalars) else 0):
        left = np.abs(residual + slopes @ (logs - at))
        error_sd = max(_ERROR_SD, _scatter(left, len(scalars)))
        weight = np.where(left <= error_sd, 1.0, error_sd / np.maximum(left, error_sd)) / error_sd**2
        normal = slopes.T @ (weight[:, None] * slopes) + precision
        solved: FloatArray = np.linalg.solve(normal, slopes.T @ (weight * (slopes @ at - residual))).astype(float)
        logs = solved
    return logs


def _scatter(left: FloatArray, fitted: int) -> float:
    """Standard deviation of what a fit of so many factors leaves, but for outliers."""
    return float(_SD_OVER_MEDIAN * np.median(left) * np.sqrt(left.size / max(1, left.size - fitted)))


def _factors(scalars: Mapping[str, Scalar], logs: FloatArray) -> dict[str, float]:
    return {name: float(np.exp(log)) for name, log in zip(scalars, logs, strict=True)}


def _applied(stack: StackProfile, scalars: Mapping[str, Scalar], factors: Mapping[str, float]) -> StackProfile:
    for name, factor in factors.items():
        stack = scalars[name].apply(stack, factor)
    return stack


def _logs(stack: StackProfile, observations: Sequence[Observation], which: int) -> FloatArray:
    return np.log([predicted(each, stack)[which] for each in observations])


def _mape(residuals: FloatArray) -> float:
    return statistics.fmean(abs(float(np.expm1(residual))) for residual in residuals)


def _labelled(stack: StackProfile, time: Part, memory: Part | None, told: str) -> StackProfile:
    """The spread of what was left out stands for that of what is to come; each scalar names what it was fitted on."""
    before = stack.spread or Spread(time_log_sd=time.log_sd, memory_log_sd=0.1, source="")
    kept = [part for part in (time, memory) if part is not None and part.better]
    spread = replace(
        before,
        time_log_sd=float(f"{max(time.log_sd, _LEAST_SD):.3g}") if time.better else before.time_log_sd,
        memory_log_sd=float(f"{max(memory.log_sd, _LEAST_SD):.3g}") if memory and memory.better else before.memory_log_sd,
        source=f"observations left out one by one: {told}",
    )
    sources = {
        f"calibrated.{name.replace(' ', '_')}": f"× {factor:.4g}, {told}"
        for part in kept
        for name, factor in part.factors.items()
    }
    earlier = {key: text for key, text in stack.sources.items() if not key.startswith("calibrated.")}
    return replace(stack, spread=spread, doubts="", provenance="calibrated", fitted_on=told, sources=earlier | sources)
