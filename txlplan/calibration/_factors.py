"""What of a stack calibration may move, and what of it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import get_args

from txlplan.choices import Task
from txlplan.hardware import PRODUCTS, EfficiencyPoint, StackProfile


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
    return replace(
        stack,
        host_op_s=forward,
        host_backward_op_s=backward,
        host_reading_op_s=reading,
        token_host=tuple(replace(each, op_s=each.op_s * factor) for each in stack.token_host),
        compiled_token_host=tuple(replace(each, op_s=each.op_s * factor) for each in stack.compiled_token_host),
    )


def _context(stack: StackProfile, factor: float) -> StackProfile:
    reading = None if stack.reading_context_bytes is None else round(stack.reading_context_bytes * factor)
    return replace(stack, context_bytes=round((stack.context_bytes or 0) * factor), reading_context_bytes=reading)


def _waste(stack: StackProfile, factor: float) -> StackProfile:
    reading = None if stack.reading_waste is None else float(f"{stack.reading_waste * factor:.5g}")
    return replace(stack, allocator_waste=float(f"{stack.allocator_waste * factor:.5g}"), reading_waste=reading)


def _whole(stack: StackProfile, factor: float) -> StackProfile:
    by_task = {task: _longer(share, factor) for task, share in stack.unattributed_by_task.items()}
    return replace(stack, unattributed=_longer(stack.unattributed, factor), unattributed_by_task=by_task)


def _of_task(task: Task) -> Callable[[StackProfile, float], StackProfile]:
    def apply(stack: StackProfile, factor: float) -> StackProfile:
        own = {task: _longer(stack.unattributed_of(task), factor)}
        return replace(stack, unattributed_by_task={**stack.unattributed_by_task, **own})

    return apply


def _longer(unattributed: float, factor: float) -> float:
    return float(f"{(1 + unattributed) * factor - 1:.5g}")


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
        apply=_whole,
        applies=lambda _: True,
        meaning="time of whole steps over that of their operations (unattributed)",
    ),
    "train": Scalar(prior_sd=0.15, apply=_of_task("train"), applies=lambda _: True, meaning="the same, of steps that train"),
    "score": Scalar(prior_sd=0.15, apply=_of_task("score"), applies=lambda _: True, meaning="the same, of segments scored"),
    "generate": Scalar(
        prior_sd=0.15, apply=_of_task("generate"), applies=lambda _: True, meaning="the same, of tokens generated"
    ),
}
_TIME_SETS: tuple[tuple[str, ...], ...] = (("whole step",), get_args(Task), ("products", "streaming", "host", "whole step"))
"""Names of what may be moved together, simplest first."""
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


def time_sets(tasks: Set[str]) -> list[dict[str, Scalar]]:
    """What of a step's time may be moved together where such tasks were observed, simplest first."""
    unseen = set(get_args(Task)) - tasks
    return [{name: TIME[name] for name in names if name not in unseen} for names in _TIME_SETS]
