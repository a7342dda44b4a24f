"""Measured peaks of memory as one array problem, and the fit of what an allocator reserves to them.

A peak is linear in the fitted numbers but for the cached temporaries of the optimizer, which are given back where memory is
short: what each number is multiplied by is taken from estimates with that number alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.cost import estimate
from txlplan.cost._op_stream import FloatArray
from txlplan.hardware import ReservedModel, StackProfile, nearest_stack
from txlplan.validation import Published

RESERVED_PRIORS: Mapping[str, Mapping[str, float]] = {
    "": {"logits": 4.0, "logits_half": 4.0, "tables_lamb": 4.0},
    "lambda-2020-amp": {"logits_half_lamb": 4.0, "tables_lamb": 4.0, "tables_adam": 2.0},
}
"""What is fitted, for all stacks and for one that differs, and where it is taken to be: a logit of three tensors that are alive
at once in backward and one that is cached, the temporaries of an update in tensors of the largest parameter."""
_LOG_SD = 0.5
_ERROR_SD = 0.04


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """Runs with a measured peak. Arrays are [runs], in bytes."""

    names: tuple[tuple[str, str], ...]
    """Stack ("": all) and field of each fitted number."""
    blocks: FloatArray
    """What is alive for each of them. [names, runs]"""
    cached: FloatArray
    """What can be given back for each of them. [names, runs]"""
    fixed: FloatArray
    """Everything else."""
    room: FloatArray
    """Memory at which cached blocks are given back."""
    measured: FloatArray

    @classmethod
    def of(cls, runs: Sequence[Published]) -> Peaks:
        """Runs without a peak have NaN in `measured`: they stay, so that masks over the runs fit."""
        names = tuple((stack, field) for stack, own in RESERVED_PRIORS.items() for field in own)
        stacks = [run.stack(nearest_stack(run.stack_name)) for run in runs]
        blocks, cached = (np.zeros((len(names), len(runs))) for _ in range(2))
        fixed, room = np.ones(len(runs)), np.full(len(runs), np.inf)
        for column, (run, stack) in enumerate(zip(runs, stacks, strict=True)):
            if run.peak_memory_bytes is None or stack.reserved is None:
                continue
            nothing = replace(
                stack.reserved, logits=0.0, logits_half=0.0, logits_half_lamb=0.0, tables_lamb=0.0, tables_adam=0.0
            )
            fixed[column] = _peak(run, stack, nothing)
            room[column] = stack.reserved.ceiling * run.cluster.device.usable_bytes()
            for row, (of, field) in enumerate(names):
                if of != _owner(names, stack.id, field):
                    continue
                one = replace(nothing, **_fields(names, stack.id, field, _UNIT))
                added = _peak(run, stack, one) - fixed[column]
                (cached if field.startswith("tables") else blocks)[row, column] = added / _UNIT
        measured = np.array([run.peak_memory_bytes or np.nan for run in runs])
        return cls(names=names, blocks=blocks, cached=cached, fixed=fixed, room=room, measured=measured)

    def predicted(self, numbers: FloatArray) -> FloatArray:
        """Peaks by the fitted numbers [names]."""
        alive = self.fixed + numbers @ self.blocks
        peaks: FloatArray = alive + np.minimum(numbers @ self.cached, np.maximum(self.room - alive, 0.0))
        return peaks


_UNIT = 1e-3
"""Of a number while its factor is taken: small enough that nothing is given back."""


def fit_reserved(peaks: Peaks, rows: npt.NDArray[np.bool_] | None = None) -> dict[tuple[str, str], float]:
    """The numbers that best explain the peaks of all runs, or of those that `rows` [runs] names, by stack and field."""
    from scipy.optimize import least_squares

    chosen = ~np.isnan(peaks.measured) & (np.ones(peaks.measured.size, dtype=bool) if rows is None else rows)
    prior = np.log([RESERVED_PRIORS[stack][field] for stack, field in peaks.names])

    def residuals(logs: FloatArray) -> FloatArray:
        errors = np.log(peaks.predicted(np.exp(logs))[chosen] / peaks.measured[chosen])
        return np.concatenate([errors / _ERROR_SD, (logs - prior) / _LOG_SD])

    found = np.exp(least_squares(residuals, prior, diff_step=1e-3).x)
    return dict(zip(peaks.names, found.tolist(), strict=True))


def with_reserved(stack: StackProfile, numbers: Mapping[tuple[str, str], float]) -> StackProfile:
    """A stack with fitted numbers in the place of its own; those of all stacks unless it has its own."""
    if stack.reserved is None:
        return stack
    given: dict[str, float] = {}
    for of, field in numbers:
        if of == _owner(tuple(numbers), stack.id, field):
            given |= _fields(tuple(numbers), stack.id, field, numbers[of, field])
    return replace(stack, reserved=replace(stack.reserved, **given))


def _fields(names: Sequence[tuple[str, str]], stack: str, field: str, value: float) -> dict[str, float]:
    """Fields that one number stands for: that of Adam serves LAMB too where LAMB has none of its own."""
    both = field == "logits_half" and (stack, "logits_half_lamb") not in names
    return {field: value, "logits_half_lamb": value} if both else {field: value}


def _owner(names: Sequence[tuple[str, str]], stack: str, field: str) -> str:
    """Whose number a stack takes: its own where there is one, else that of all."""
    return stack if (stack, field) in names else ""


def _peak(run: Published, stack: StackProfile, reserved: ReservedModel) -> float:
    return float(estimate(run.workload, run.cluster, replace(stack, reserved=reserved), [run.plan]).peak_memory_bytes[0])
