"""When nothing fits: which memory term overflows, by how much, and the cheapest changes that were verified to fit."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from txlplan.choices import Checkpointing, Precision
from txlplan.cost import Estimates, estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile, devices
from txlplan.plan_file import Plan
from txlplan.planner._space import divisors
from txlplan.units import counted, format_bytes
from txlplan.workload import Workload

_FIXES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Fix:
    """A change that makes a plan fit, as its estimate says."""

    words: str
    kind: str
    """What is changed: one fix a kind is offered."""
    plan: Plan
    estimate: Estimate


def memory_refusal(
    workload: Workload,
    cluster: Cluster,
    stack: StackProfile,
    estimates: Estimates,
    n_considered: int,
    known: Sequence[Fix] | None = None,
) -> NoPlanFitsError:
    """The error where every plan exceeds the memory of a device; of the nearest of `estimates` the largest term is named.

    `known`: its fixes, where they are there already.
    """
    over = estimates.peak_memory_bytes - estimates.capacity_bytes
    nearest = int(np.argmin(over))
    plan, found = estimates.plans[nearest], estimates[nearest]
    largest = found.part("memory")[0]
    which = f"none of {n_considered:,} plans fits {cluster.device.name}: the nearest ({describe(plan)}) needs"
    if n_considered == 1:
        which = f"the plan ({describe(plan)}) does not fit {cluster.device.name}: it needs"
    message = (
        f"{which} {format_bytes(found.peak_memory_bytes.value)} of {format_bytes(found.capacity_bytes)} a device, "
        f"{format_bytes(float(over[nearest]))} ({int(over[nearest]):,} bytes) too many; "
        f"the term that overflows is {largest.name} with {format_bytes(largest.value)}"
    )
    known = fixes(workload, cluster, stack, plan) if known is None else known
    hint = "; or ".join(fix.words for fix in known)
    return NoPlanFitsError(message, hint=hint or "no change of batch, checkpointing, precision or device that we know fits")


def describe(plan: Plan) -> str:
    """`micro_batch 4 × 8, bf16, 2 devices, checkpointing full`."""
    batch = f"micro_batch {plan.micro_batch}" + (f" × {plan.accumulation}" if plan.accumulation > 1 else "")
    replicas = f"{plan.data_parallel} devices" if plan.n_devices == plan.data_parallel else f"data {plan.data_parallel}"
    some = f" of {counted(plan.checkpointed_layers, 'layer')}" if plan.checkpointed_layers else ""
    parts = (
        (True, batch),
        (True, plan.precision),
        (plan.data_parallel > 1, replicas),
        (plan.tensor_parallel > 1, f"tensor {plan.tensor_parallel}"),
        (plan.pipeline_parallel > 1, f"pipeline {plan.pipeline_parallel}"),
        (plan.virtual_stages > 1, f"{plan.virtual_stages} virtual stages"),
        (plan.context_parallel > 1, f"context {plan.context_parallel}"),
        (plan.zero_stage > 0, f"ZeRO {plan.zero_stage}"),
        (plan.activation_checkpointing != "none", f"checkpointing {plan.activation_checkpointing}{some}"),
        (plan.offload != "none", f"{plan.offload} offloaded"),
        (plan.optimizer_precision != "fp32", f"optimizer states {plan.optimizer_precision}"),
        (plan.attention != "fast", f"{plan.attention} attention"),
        (plan.compile, "compiled"),
        (plan.threads is not None, counted(plan.threads or 0, "thread")),
        (not plan.runnable, "not run by this version"),
    )
    return ", ".join(words for said, words in parts if said)


def fixes(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> list[Fix]:
    """Up to three changes, of different kinds, whose estimates fit: those that cost least time first; a device comes last."""
    found: dict[str, Fix] = {}

    def fits(changed: Plan) -> bool:
        it = _estimate_or_none(workload, cluster, stack, changed)
        return it is not None and it.fits

    for kind, words, changed in _plan_changes(workload, cluster, plan, fits):
        of_it = _estimate_or_none(workload, cluster, stack, changed)
        if of_it is None or not of_it.fits:
            continue
        fix = Fix(words=f"{words}: {_of_capacity(of_it)}", kind=kind, plan=changed, estimate=of_it)
        if kind not in found or of_it.tokens_per_s.value > found[kind].estimate.tokens_per_s.value:
            found[kind] = fix
    ranked = sorted(found.values(), key=lambda fix: -fix.estimate.tokens_per_s.value)
    if not ranked and (smaller := _smaller_batch(workload, cluster, stack, plan)):
        ranked.append(smaller)
    if len(ranked) < _FIXES and (device := _other_device(workload, cluster, stack, plan)):
        ranked.append(device)
    return ranked[:_FIXES]


def _of_capacity(found: Estimate) -> str:
    return f"{format_bytes(found.peak_memory_bytes.value)} of {format_bytes(found.capacity_bytes)}"


def _smaller_batch(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> Fix | None:
    """The largest global batch that fits, in micro-batches of one sequence: memory grows with their number."""

    def changed(accumulation: int) -> Plan:
        return replace(plan, micro_batch=1, accumulation=accumulation)

    def at(accumulation: int) -> Estimate | None:
        smaller = replace(workload, global_batch=changed(accumulation).global_batch)
        found = _estimate_or_none(smaller, cluster, stack, changed(accumulation))
        return found if found is not None and found.fits else None

    share = plan.micro_batch * plan.accumulation if workload.task == "train" else 1
    fitting = bisect.bisect_left(range(1, share + 1), True, key=lambda count: at(count) is None)
    if (found := at(fitting) if fitting else None) is None:
        return None
    words = f"global_batch {fitting * plan.data_parallel} with micro_batch 1 and accumulation {fitting} fits"
    return Fix(words=f"{words}: {_of_capacity(found)}", kind="batch", plan=changed(fitting), estimate=found)


def _plan_changes(
    workload: Workload, cluster: Cluster, plan: Plan, fits: Callable[[Plan], bool]
) -> Iterator[tuple[str, str, Plan]]:
    """One setting changed at a time, then two together: what kind of change, in words, and the plan."""
    trains = workload.task == "train" and plan.activation_checkpointing == "none"
    for changed in _smaller_micro_batch(workload, plan, fits):
        yield "batch", f"micro_batch {changed.micro_batch} with accumulation {changed.accumulation} fits", changed
    if trains:
        kinds: tuple[Checkpointing, ...] = ("attention", "feed-forward", "full")
        for kind in kinds:
            checkpointed = replace(plan, activation_checkpointing=kind, compile=False)
            yield "checkpointing", f"activation_checkpointing {kind} fits", checkpointed
    narrow: tuple[Precision, ...] = ("bf16", "fp16")
    for name in narrow:
        if cluster.device.peak(name) is not None and plan.precision in ("fp32", "tf32"):
            yield "precision", f"precision {name} fits", replace(plan, precision=name)
    for words, changed in _more_devices(cluster, plan):
        yield "devices", words, changed
    if workload.task == "train":
        yield from _states(plan)
    full = replace(plan, activation_checkpointing="full", compile=False)
    for changed in _smaller_micro_batch(workload, full, fits) if trains else ():
        words = (
            f"micro_batch {changed.micro_batch} with accumulation {changed.accumulation} and activation_checkpointing full fit"
        )
        yield "batch and checkpointing", words, changed


def _states(plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    """Optimizer states, gradients and parameters elsewhere."""
    if plan.data_parallel * plan.context_parallel > 1:
        for stage in range(plan.zero_stage + 1, 4):
            yield "sharding", f"zero_stage {stage} fits", replace(plan, zero_stage=stage)
    if plan.offload == "none":
        yield "offload", "offload optimizer fits", replace(plan, offload="optimizer")


def _smaller_micro_batch(workload: Workload, plan: Plan, fits: Callable[[Plan], bool]) -> Iterator[Plan]:
    """The largest smaller micro-batch that fits, if one does: memory grows with it. To train, of the same sequences a step."""
    share = plan.micro_batch * plan.accumulation
    sizes: Sequence[int] = range(1, plan.micro_batch)
    if workload.task == "train":
        sizes = [size for size in divisors(share) if size < plan.micro_batch]

    def changed(size: int) -> Plan:
        return replace(plan, micro_batch=size, accumulation=share // size if workload.task == "train" else 1)

    count = bisect.bisect_left(sizes, True, key=lambda size: not fits(changed(size)))
    if count:
        yield changed(sizes[count - 1])


def _more_devices(cluster: Cluster, plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The same global batch over more of the cluster's devices."""
    if plan.n_devices > plan.data_parallel:
        return
    for devices_used in divisors(plan.global_batch):
        if plan.data_parallel < devices_used <= cluster.n_devices:
            share = plan.global_batch // devices_used
            size = max(number for number in divisors(share) if number <= plan.micro_batch)
            changed = replace(plan, data_parallel=devices_used, micro_batch=size, accumulation=share // size, compile=False)
            yield f"{devices_used} data-parallel devices fit", changed


def _estimate_or_none(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> Estimate | None:
    try:
        return estimate(workload, cluster, stack, [plan])[0]
    except InputError:
        return None


def _other_device(workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan) -> Fix | None:
    """The known device of the same kind with the least memory that holds the plan."""
    larger = [
        device
        for device in devices.all()
        if device.kind == cluster.device.kind and device.usable_bytes() > cluster.device.usable_bytes()
    ]
    for device in sorted(larger, key=lambda device: (device.usable_bytes(), device.id)):
        found = _estimate_or_none(workload, replace(cluster, device=device), stack, plan)
        if found is not None and found.fits:
            words = f"{device.name} ({device.id}) with {format_bytes(device.usable_bytes())} holds that plan"
            return Fix(words=words, kind="device", plan=plan, estimate=found)
    return None
