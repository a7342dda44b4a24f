"""When nothing fits: which memory term overflows, by how much, and the smallest change that was verified to fit."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from txlplan.cost import Estimates, estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile, devices
from txlplan.plan_file import Plan
from txlplan.units import format_bytes
from txlplan.workload import Workload


def memory_refusal(
    workload: Workload, cluster: Cluster, stack: StackProfile, plans: Sequence[Plan], estimates: Estimates
) -> NoPlanFitsError:
    """The error where every plan exceeds the memory of a device; of the nearest plan the largest term is named."""
    over = estimates.peak_memory_bytes - estimates.capacity_bytes
    nearest = int(np.argmin(over))
    found = estimates[nearest]
    largest = found.part("memory")[0]
    message = (
        f"none of {len(plans)} plans fits {cluster.device.name}: the nearest ({describe(plans[nearest])}) needs "
        f"{format_bytes(found.peak_memory_bytes.value)} of {format_bytes(found.capacity_bytes)} a device, "
        f"{format_bytes(float(over[nearest]))} ({int(over[nearest]):,} bytes) too many; "
        f"the term that overflows is {largest.name} with {format_bytes(largest.value)}"
    )
    change = smallest_change(workload, cluster, stack, plans[nearest])
    return NoPlanFitsError(message, hint=change or "no change of batch, checkpointing, precision or device that we know fits")


def describe(plan: Plan) -> str:
    """`micro_batch 4 × 8, bf16, 2 devices, checkpointing full`."""
    parts = [f"micro_batch {plan.micro_batch}" + (f" × {plan.accumulation}" if plan.accumulation > 1 else ""), plan.precision]
    if plan.data_parallel > 1:
        parts.append(f"{plan.data_parallel} devices")
    if plan.activation_checkpointing != "none":
        parts.append(f"checkpointing {plan.activation_checkpointing}")
    if plan.threads:
        parts.append(f"{plan.threads} threads")
    return ", ".join(parts)


def smallest_change(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> str | None:
    """The first change, least first, whose estimate fits: in words, or None."""
    for words, changed in _plan_changes(workload, cluster, plan):
        found = _estimate_or_none(workload, cluster, stack, changed)
        if found is not None and found.fits:
            return f"{words}: {_of_capacity(found)}"
    return _smaller_batch(workload, cluster, stack, plan) or _other_device(workload, cluster, stack, plan)


def _of_capacity(found: Estimate) -> str:
    return f"{format_bytes(found.peak_memory_bytes.value)} of {format_bytes(found.capacity_bytes)}"


def _smaller_batch(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> str | None:
    """The largest global batch that fits, in micro-batches of one sequence: memory grows with their number."""

    def at(accumulation: int) -> Estimate | None:
        changed = replace(plan, micro_batch=1, accumulation=accumulation)
        smaller = replace(workload, global_batch=changed.global_batch)
        found = _estimate_or_none(smaller, cluster, stack, changed)
        return found if found is not None and found.fits else None

    share = plan.micro_batch * plan.accumulation if workload.task == "train" else 1
    fitting = bisect.bisect_left(range(1, share + 1), True, key=lambda count: at(count) is None)
    if (found := at(fitting) if fitting else None) is None:
        return None
    return (
        f"global_batch {fitting * plan.data_parallel} with micro_batch 1 and accumulation {fitting} fits: {_of_capacity(found)}"
    )


def _plan_changes(workload: Workload, cluster: Cluster, plan: Plan) -> Iterator[tuple[str, Plan]]:
    """One setting changed at a time, then two together."""
    smaller = _smaller_micro_batches(workload, plan)
    checkpointed = replace(plan, activation_checkpointing="full")
    trains = workload.task == "train" and plan.activation_checkpointing == "none"
    narrow = [name for name in ("bf16", "fp16") if cluster.device.peak(name) is not None and plan.precision in ("fp32", "tf32")]
    for changed in smaller:
        yield f"micro_batch {changed.micro_batch} with accumulation {changed.accumulation} fits", changed
    if trains:
        yield "activation_checkpointing full fits", checkpointed
    for name in narrow:
        yield f"precision {name} fits", replace(plan, precision=name)  # type: ignore[arg-type]
    yield from _more_devices(cluster, plan)
    for changed in smaller if trains else []:
        words = (
            f"micro_batch {changed.micro_batch} with accumulation {changed.accumulation} and activation_checkpointing full fit"
        )
        yield words, replace(changed, activation_checkpointing="full")


def _smaller_micro_batches(workload: Workload, plan: Plan) -> list[Plan]:
    """The same sequences a step in smaller micro-batches, the largest first."""
    if workload.task != "train":
        return [replace(plan, micro_batch=size) for size in range(plan.micro_batch - 1, 0, -1)]
    share = plan.micro_batch * plan.accumulation
    sizes = [size for size in range(plan.micro_batch - 1, 0, -1) if share % size == 0]
    return [replace(plan, micro_batch=size, accumulation=share // size) for size in sizes]


def _more_devices(cluster: Cluster, plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The same global batch over more of the cluster's devices."""
    for devices_used in range(plan.data_parallel + 1, cluster.n_devices + 1):
        if plan.global_batch % devices_used == 0:
            share = plan.global_batch // devices_used
            size = max(number for number in range(1, plan.micro_batch + 1) if share % number == 0)
            changed = replace(plan, data_parallel=devices_used, micro_batch=size, accumulation=share // size)
            yield f"{devices_used} data-parallel devices fit", changed


def _estimate_or_none(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> Estimate | None:
    try:
        return estimate(workload, cluster, stack, [plan])[0]
    except InputError:
        return None


def _other_device(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> str | None:
    """The known device of the same kind with the least memory that holds the plan."""
    larger = [
        device
        for device in devices.all()
        if device.kind == cluster.device.kind and device.usable_bytes() > cluster.device.usable_bytes()
    ]
    for device in sorted(larger, key=lambda device: (device.usable_bytes(), device.id)):
        found = _estimate_or_none(workload, replace(cluster, device=device), stack, plan)
        if found is not None and found.fits:
            return f"a {device.name} ({device.id}) with {format_bytes(device.usable_bytes())} holds that plan"
    return None
