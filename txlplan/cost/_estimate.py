"""The one door to the cost model: plans in, estimates out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._energy import energy_j_per_step
from txlplan.cost._evaluated import Evaluated, evaluate
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._ranges import interval, memory_log_sd, time_log_sd
from txlplan.cost._terms import terms
from txlplan.cost._time import peak_flops_per_s
from txlplan.errors import InputError
from txlplan.estimates import Estimate, Range
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.workload import Workload

_MEASURED_SHARE = 0.8
"""Share of the device's time that must lie within measured shapes for an estimate not to be extrapolated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """What plans will take: arrays over plans, and each plan's full estimate on demand."""

    workload: Workload
    cluster: Cluster
    stack: StackProfile
    plans: tuple[Plan, ...]
    capacity_bytes: npt.NDArray[np.int64]
    """What each plan may use of one device, [candidates]."""
    step_s: FloatArray
    tokens_per_s: FloatArray
    peak_memory_bytes: FloatArray
    fits: npt.NDArray[np.bool_]
    parts: tuple[Evaluated, ...]
    part: npt.NDArray[np.int64]
    """Which of `parts` a plan is in, and `place` where in it."""
    place: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[Estimate]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Estimate:
        """The estimate of one plan, with its terms and ranges."""
        plan, part, place = self.plans[index], self.parts[int(self.part[index])], int(self.place[index])
        extrapolated = self.is_extrapolated(index)
        step = interval(float(self.step_s[index]), time_log_sd(self.stack, extrapolated=extrapolated))
        tokens = tokens_per_step(self.workload, plan)
        flops = part.model_flops(place) * plan.data_parallel
        peak = peak_flops_per_s(self.cluster.device, plan.precision)
        devices = _devices(self.cluster, plan)
        return Estimate(
            stack=self.stack.id,
            step_s=step,
            tokens_per_s=Range(value=tokens / step.value, low=tokens / step.high, high=tokens / step.low),
            peak_memory_bytes=interval(
                float(self.peak_memory_bytes[index]), memory_log_sd(self.stack, extrapolated=extrapolated)
            ),
            capacity_bytes=int(self.capacity_bytes[index]),
            fits=bool(self.fits[index]),
            flops_per_step=flops,
            mfu=flops / (peak * devices * step.value),
            energy_j_per_step=energy_j_per_step(self.cluster.device, devices, step, part.busy_share(place)),
            terms=terms(part, place, self.cluster.device, self.stack),
            extrapolated=extrapolated,
            notes=self._notes(index),
        )

    @property
    def energy_j_per_token(self) -> FloatArray | None:
        """Energy per token, [candidates]; None where the device's power is unknown."""
        if self.cluster.device.power_w is None:
            return None
        joules = np.empty(len(self))
        for index, plan in enumerate(self.plans):
            part, place = self.parts[int(self.part[index])], int(self.place[index])
            step = Range(value=float(self.step_s[index]), low=0.0, high=0.0)
            energy = energy_j_per_step(self.cluster.device, _devices(self.cluster, plan), step, part.busy_share(place))
            assert energy is not None
            joules[index] = energy.value / tokens_per_step(self.workload, plan)
        return joules

    def is_extrapolated(self, index: int) -> bool:
        """Whether the figures come from another device, or from beyond the shapes they were measured on."""
        if self.stack.stands_in_for is not None:
            return True
        if self.stack.kernels is not None:
            return self.cluster.device.id not in self.stack.fitted_devices
        if self.stack.measured_device != self.cluster.device.id:
            return True
        part = self.parts[int(self.part[index])]
        return part.measured_share(int(self.place[index])) < _MEASURED_SHARE

    def _notes(self, index: int) -> tuple[str, ...]:
        notes = []
        device, stack = self.cluster.device, self.stack
        if stack.stands_in_for is not None:
            notes.append(f"stack {stack.stands_in_for} has no profile: {stack.id} stands in for it")
        if stack.kernels is not None:
            if device.id not in stack.fitted_devices:
                notes.append(f"stack {stack.id} was fitted on {', '.join(stack.fitted_devices)}, not on {device.id}")
            if device.peak(self.plans[index].precision) is None:
                notes.append(f"{device.name} has no {self.plans[index].precision} units: it stores that and computes in fp32")
        elif stack.measured_device is None:
            notes.append(f"stack {stack.id} has not been measured on any device: efficiencies are assumed")
        elif stack.measured_device != device.id:
            notes.append(f"stack {stack.id} was measured on {stack.measured_device}, not on {device.id}")
        elif self.is_extrapolated(index):
            notes.append("a fifth or more of the time is spent in shapes beyond the measured ones")
        if stack.spread is None:
            notes.append(f"stack {stack.id} states no spread: the range is a default")
        return tuple(notes)


def estimate(workload: Workload, cluster: Cluster, stack: StackProfile, plans: Sequence[Plan]) -> Estimates:
    """Estimate every plan. Raises InputError for a plan that the cluster cannot run or that this version cannot cost."""
    plans = tuple(plans)
    keys = [_key(plan, cluster) for plan in plans]
    members: dict[tuple[object, ...], list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    shape = (len(plans),)
    step_s, peak, capacity = np.empty(shape), np.empty(shape), np.empty(shape, dtype=np.int64)
    part, place = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    parts: list[Evaluated] = []
    for indices in members.values():
        first = plans[indices[0]]
        _check(first, cluster, workload, stack)
        ranks = _ranks_per_device(first, cluster)
        evaluated = evaluate(workload, cluster, stack, [plans[index] for index in indices], ranks=ranks)
        step_s[indices], peak[indices] = evaluated.step_s, evaluated.peak_memory_bytes
        capacity[indices] = int(cluster.device.usable_bytes() * (1 - workload.memory_headroom)) // ranks
        part[indices], place[indices] = len(parts), np.arange(len(indices))
        parts.append(evaluated)
    tokens = np.array([tokens_per_step(workload, plan) for plan in plans], dtype=float)
    return Estimates(
        workload=workload,
        cluster=cluster,
        stack=stack,
        plans=plans,
        capacity_bytes=capacity,
        step_s=step_s,
        tokens_per_s=tokens / step_s,
        peak_memory_bytes=peak,
        fits=peak <= capacity,
        parts=tuple(parts),
        part=part,
        place=place,
    )


def tokens_per_step(workload: Workload, plan: Plan) -> int:
    """Over all devices; a step of generation is one token of each sequence."""
    return plan.global_batch * (1 if workload.task == "generate" else workload.model.tgt_len)


def _key(plan: Plan, cluster: Cluster) -> tuple[object, ...]:
    """What plans that are costed together agree in."""
    axes = (plan.tensor_parallel, plan.pipeline_parallel, plan.context_parallel, plan.zero_stage, plan.compile, plan.attention)
    return plan.precision, plan.activation_checkpointing, plan.threads, _ranks_per_device(plan, cluster), axes


def _ranks_per_device(plan: Plan, cluster: Cluster) -> int:
    """Processes that share a CPU, where there are more of them than CPUs."""
    return -(-plan.data_parallel // cluster.n_devices) if cluster.device.kind == "cpu" else 1


def _devices(cluster: Cluster, plan: Plan) -> int:
    return min(plan.n_devices, cluster.n_devices)


def _check(plan: Plan, cluster: Cluster, workload: Workload, stack: StackProfile) -> None:
    for axis in ("tensor_parallel", "pipeline_parallel", "context_parallel"):
        if getattr(plan, axis) > 1:
            raise InputError(f"{axis} = {getattr(plan, axis)}: this version estimates data parallelism only")
    if plan.zero_stage:
        raise InputError(f"zero_stage = {plan.zero_stage}: this version estimates replicated states only")
    if plan.compile and workload.task != "generate":
        raise InputError("compile: this version estimates eager execution, but for the step of generation")
    if cluster.device.kind != "cpu" and plan.data_parallel > cluster.n_devices:
        raise InputError(f"data_parallel = {plan.data_parallel}, but {cluster.system.id} has {cluster.n_devices} devices")
    if cluster.device.peak(plan.precision) is None and stack.kernels is None:
        known = ", ".join(cluster.device.peak_flops_per_s)
        raise InputError(f"{cluster.device.name} has no {plan.precision}", hint=f"it has {known}")
    if workload.task != "train" and plan.accumulation > 1:
        raise InputError(f"accumulation = {plan.accumulation}: only training accumulates")
