"""Calibrating a stack to observations: a few physical factors, each with a prior of one, by a robust fit.

The residual is log(predicted / measured); factors are fitted on a logarithmic scale by Gauss-Newton steps with Huber
weights and normal priors (so that what the observations do not tell apart stays at one). Time and memory are fitted apart,
and each is kept only where observations that were left out are predicted better than before.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from txlplan.calibration._observations import Observation, predicted
from txlplan.cost._op_stream import FloatArray
from txlplan.errors import BarMissedError
from txlplan.hardware import PRODUCTS, EfficiencyPoint, Spread, StackProfile

_ERROR_SD = 0.04
"""Relative error that a residual of 1 stands for; beyond it an observation weighs less (Huber)."""
_DIFFERENCE = 0.02
"""Step of the finite differences, in logarithms."""
_ROUNDS = 2
_REWEIGHTED = 5
_LEAST_SD = 0.03
"""Spread below which no stack is stated: a machine's own drift from day to day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """One factor of a stack."""

    prior_sd: float
    """Standard deviation of its logarithm before anything is observed."""
    apply: Callable[[StackProfile, float], StackProfile]
    applies: Callable[[StackProfile], bool]
    meaning: str


def _points(stack: StackProfile, factor: float, products: bool) -> StackProfile:
    def moved(point: EfficiencyPoint) -> EfficiencyPoint:
        chosen = (point.kind in PRODUCTS) == products
        return replace(point, utilisation=float(f"{point.utilisation * factor:.5g}")) if chosen else point

    return replace(stack, efficiency=tuple(moved(point) for point in stack.efficiency))


def _host(stack: StackProfile, factor: float) -> StackProfile:
    backward = None if stack.host_backward_op_s is None else stack.host_backward_op_s * factor
    reading = None if stack.host_reading_op_s is None else stack.host_reading_op_s * factor
    forward = (stack.host_op_s or 0.0) * factor
    return replace(stack, host_op_s=forward, host_backward_op_s=backward, host_reading_op_s=reading)


def _context(stack: StackProfile, factor: float) -> StackProfile:
    reading = None if stack.reading_context_bytes is None else round(stack.reading_context_bytes * factor)
    return replace(stack, context_bytes=round((stack.context_bytes or 0) * factor), reading_context_bytes=reading)


def _waste(stack: StackProfile, factor: float) -> StackProfile:
    reading = None if stack.reading_waste is None else float(f"{stack.reading_waste * factor:.5g}")
    return replace(stack, allocator_waste=float(f"{stack.allocator_waste * factor:.5g}"), reading_waste=reading)


def _measured(stack: StackProfile) -> bool:
    return stack.kernels is None and bool(stack.efficiency)


TIME: Mapping[str, Scalar] = {
    "products": Scalar(
        prior_sd=0.15,
        apply=lambda stack, factor: _points(stack, factor, True),
        applies=_measured,
        meaning="utilisation that matrix products reach",
    ),
    "streaming": Scalar(
        prior_sd=0.15,
        apply=lambda stack, factor: _points(stack, factor, False),
        applies=_measured,
        meaning="utilisation of the bandwidth that all other operations reach",
    ),
    "host": Scalar(
        prior_sd=0.30,
        apply=_host,
        applies=lambda stack: stack.kernels is None and stack.host_op_s is not None,
        meaning="host time per operation",
    ),
    "whole step": Scalar(
        prior_sd=0.20,
        apply=lambda stack, factor: replace(stack, unattributed=float(f"{(1 + stack.unattributed) * factor - 1:.5g}")),
        applies=lambda _: True,
        meaning="time of whole steps over that of their operations (unattributed)",
    ),
}
MEMORY: Mapping[str, Scalar] = {
    "context": Scalar(
        prior_sd=0.15,
        apply=_context,
        applies=lambda stack: stack.context_bytes is not None,
        meaning="memory of a process before it allocates anything",
    ),
    "allocator waste": Scalar(
        prior_sd=0.50,
        apply=_waste,
        applies=lambda stack: stack.allocator_waste > 0 and stack.reserved is None,
        meaning="what the allocator holds beside what is alive",
    ),
}


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
    time = _fitted(stack, observations, TIME, 0)
    with_peak = [each for each in observations if each.peak_memory_bytes]
    memory = _fitted(stack, with_peak, MEMORY, 1) if len(with_peak) == len(observations) else None
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


def _fitted(stack: StackProfile, observations: Sequence[Observation], scalars: Mapping[str, Scalar], which: int) -> Part:
    """Those left out are predicted by fits that take the residuals as linear about the fit to all."""
    chosen = {name: scalar for name, scalar in scalars.items() if scalar.applies(stack)}
    measured = np.log([(each.tokens_per_s, each.peak_memory_bytes or 0.0)[which] for each in observations])
    start = _logs(stack, observations, which) - measured
    logs = np.zeros(len(chosen))
    residual, slopes = start, np.zeros((len(observations), len(chosen)))
    for _ in range(_ROUNDS if chosen else 0):
        slopes = _slopes(stack, observations, chosen, logs, residual + measured, which)
        logs = _step(residual, slopes, logs, chosen, at=logs)
        residual = _logs(_applied(stack, chosen, _factors(chosen, logs)), observations, which) - measured
    left_out = []
    for index in range(len(observations)):
        kept = np.arange(len(observations)) != index
        own = _step(residual[kept], slopes[kept], logs, chosen, at=logs)
        moved = _applied(stack, chosen, _factors(chosen, own))
        left_out.append(float(_logs(moved, [observations[index]], which)[0] - measured[index]))
    return Part(
        factors=_factors(chosen, logs),
        before=_mape(start),
        after=_mape(residual),
        left_out=_mape(np.array(left_out)),
        log_sd=float(np.sqrt(np.mean(np.square(left_out)))),
    )


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
        scaled = np.abs(residual + slopes @ (logs - at)) / _ERROR_SD
        weight = np.where(scaled <= 1, 1.0, 1 / np.maximum(scaled, 1.0)) / _ERROR_SD**2
        normal = slopes.T @ (weight[:, None] * slopes) + precision
        solved: FloatArray = np.linalg.solve(normal, slopes.T @ (weight * (slopes @ at - residual))).astype(float)
        logs = solved
    return logs


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
    return replace(stack, spread=spread, provenance="calibrated", fitted_on=told, sources=earlier | sources)
