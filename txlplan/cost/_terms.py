"""Named summands of one plan's step time and peak memory, each with its formula, provenance and bound."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from txlplan.cost._evaluated import Evaluated
from txlplan.cost._link_terms import link_terms
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._plans import IntArray
from txlplan.cost._ring import MEETING, STREAMED
from txlplan.cost._time import bandwidth_bytes_per_s, computed_in, peak_flops_per_s
from txlplan.estimates import Bound, Term
from txlplan.hardware import DeviceProfile, StackProfile
from txlplan.hardware._device import Provenance
from txlplan.plan_file import Plan
from txlplan.units import format_bytes, format_bytes_per_s, format_count, format_flops_per_s, format_s


def terms(found: Evaluated, device: DeviceProfile, stack: StackProfile, plan: Plan) -> tuple[Term, ...]:
    """Time terms that add up to the step, memory terms that add up to the peak, of the first plan; zero ones are left out.

    Time is that of the slowest stage, memory that of the fullest.
    """
    every = [
        *_device_terms(found, device, stack),
        *_host_terms(found, device, stack),
        *link_terms(found, stack, plan),
        *_memory_terms(found, stack),
    ]
    return tuple(term for term in every if term.value != 0)


def _device_terms(found: Evaluated, device: DeviceProfile, stack: StackProfile) -> Iterator[Term]:
    """One term a group of operations, over all micro-batches of a step."""
    stream, time, times = found.parts.stream, found.parts.time, found.times()
    groups, group_of = _groups(stream.groups)
    computing = time.compute_bound[:, 0]
    by_bound = 2 * group_of + computing
    seconds = time.op_s[:, 0] * times
    amounts = np.where(computing, stream.flops[:, 0], stream.bytes_moved[:, 0]) * times

    def summed(values: FloatArray) -> list[list[float]]:
        """Of what is bound by bandwidth, and by compute, in each group."""
        sums = np.bincount(by_bound, weights=values, minlength=2 * len(groups))
        return [[float(each) for each in pair] for pair in sums.reshape(-1, 2).tolist()]

    columns = (seconds, amounts, seconds * time.measured[:, 0], stream.launches[:, 0] * times)
    for group, bound_s, amount, measured_s, launches in zip(groups, *map(summed, columns), strict=True):
        total_s = sum(bound_s)
        if total_s == 0:
            continue
        if group == MEETING:
            yield _meetings(total_s, sum(launches), stack)
            continue
        if group == STREAMED:
            yield _streamed(total_s, sum(amount), sum(measured_s), device, stack)
            continue
        by_compute = bound_s[1] > total_s / 2
        bound: Bound = "compute" if by_compute else "bandwidth"
        first = _first(by_bound, 2 * groups.index(group) + by_compute)
        kind = stream.kinds[first]
        dtype = computed_in(kind, stream.dtypes[first])
        ceiling = peak_flops_per_s(device, dtype) if by_compute else bandwidth_bytes_per_s(device, stack, kind)
        used = f"{format_flops_per_s(ceiling)} {dtype}" if by_compute else format_bytes_per_s(ceiling)
        yield Term(
            name=group,
            quantity="time",
            value=total_s,
            formula=_formula(bound, ceiling, used, amount[by_compute], bound_s[by_compute], total_s, sum(launches)),
            provenance="measured" if sum(measured_s) >= 0.5 * total_s else _unmeasured(stack),
            bound=bound,
        )


def _meetings(total_s: float, times: float, stack: StackProfile) -> Term:
    return Term(
        name=MEETING,
        quantity="time",
        value=total_s,
        formula=f"{format_count(times)} times × {format_s(total_s / times)}",
        provenance="derived" if stack.meeting_s is None else stack.provenance,
        bound="host",
    )


def _streamed(total_s: float, read_bytes: float, measured_s: float, device: DeviceProfile, stack: StackProfile) -> Term:
    """Of tokens: what products take longer for it."""
    rate = format_bytes_per_s(bandwidth_bytes_per_s(device, stack, "summed"))
    return Term(
        name=STREAMED,
        quantity="time",
        value=total_s,
        formula=f"{format_bytes(read_bytes)} read while products run (memory gives {rate}): what these take longer",
        provenance="measured" if measured_s >= 0.5 * total_s else _unmeasured(stack),
        bound="bandwidth",
    )


def _unmeasured(stack: StackProfile) -> Provenance:
    return "derived" if stack.kernels is None else stack.provenance


def _first(values: IntArray, value: int) -> int:
    return int((values == value).argmax())


@lru_cache(maxsize=256)
def _groups(groups: tuple[str, ...]) -> tuple[tuple[str, ...], IntArray]:
    """Their names, in order of appearance, and which of them each operation belongs to."""
    names = tuple(dict.fromkeys(groups))
    return names, np.array([names.index(name) for name in groups], dtype=np.int64)


def _formula(bound: Bound, ceiling: float, rate: str, amount: float, chosen_s: float, total_s: float, launches: float) -> str:
    quantity = format_flops_per_s(amount).removesuffix("/s") if bound == "compute" else format_bytes(amount)
    share = amount / ceiling / chosen_s if chosen_s else 0.0
    text = f"{quantity} / ({rate} × {share:.2f}), {format_count(launches)} operations"
    rest = total_s - chosen_s
    return f"{text}; the others {format_s(rest)}" if rest > 0.005 * total_s else text


def _host_terms(found: Evaluated, device: DeviceProfile, stack: StackProfile) -> Iterator[Term]:
    position, steps = found.positions[int(found.slowest[0])].time, float(found.plans.accumulation[0])
    dispatch = found.parts.time.dispatch_s
    forward, backward = float(position.forward_launches[0]), float(position.backward_launches[0])
    update = found.update
    dispatched_s = steps * (forward * dispatch["forward"] + backward * dispatch["backward"]) + float(update.host_s[0])
    device_s = float((position.forward_device_s + position.backward_device_s)[0])
    beyond_s = steps * (float(position.compute_s[0]) - device_s) + float((update.total_s - update.device_s)[0])
    launches = steps * (forward + backward) + float(update.launches[0])
    formula = f"{format_count(launches)} operations × {format_s(dispatched_s / max(launches, 1.0))}"
    yield Term(
        name="host dispatch",
        quantity="time",
        value=beyond_s,
        formula=formula if device.kind == "cpu" else f"{formula}, what the device does not hide, per region",
        provenance=stack.provenance if stack.host_op_s is not None or stack.kernels is not None else "derived",
        bound="host",
    )
    yield Term(
        name="unattributed",
        quantity="time",
        value=float(found.unattributed_s[0]),
        formula=f"{stack.unattributed_of(found.layout.settings.task):+.0%} of operations and dispatch, as whole steps showed",
        provenance=stack.provenance,
        bound="host",
    )


_RESERVED_FORMULAS = {
    "gradients": "parameters × bytes of one",
    "saved activations": "kept for backward, × a fitted share, with the further clusters of the softmax",
    "largest transient": "blocks of the size of all logits, as many as were fitted",
    "weight copies": "an fp32 master and its fp32 gradient for each fp16 parameter (Apex O2)",
    "allocator waste": "cached temporaries of the optimizer, in copies of the largest parameter, as far as there is room",
}
"""Of the terms that a stack's fitted model of the allocator stands behind."""


def _memory_terms(found: Evaluated, stack: StackProfile) -> Iterator[Term]:
    held = found.positions[int(found.fullest[0])].held
    fitted = stack.reserved is not None and found.layout.training
    row = int(held.row[0])
    at_peak = f"alive at the peak, in {found.parts.stream.names[row]!r} ({found.parts.stream.phases[row]})"
    parts = (
        ("parameters", held.parameters_bytes, "parameters × bytes of one"),
        ("gradients", held.gradient_bytes, f"parameters × 4 B, {at_peak}"),
        ("optimizer states", held.optimizer_bytes, "two fp32 states a parameter (Adafactor: a row and a column a matrix)"),
        (
            "recurrent memory",
            held.recurrent_memory_bytes,
            "layers × sequences × mem_len × d_model × 4 B, every accumulation chunk",
        ),
        ("saved activations", held.saved_bytes, f"kept for backward, {at_peak}"),
        ("largest transient", held.transient_bytes, f"inputs and outputs around {found.parts.stream.names[row]!r}"),
        ("weight copies", held.weight_copies_bytes, "parameters in the precision of products, kept by autocast"),
        ("context", held.context_bytes, "the process or device context before anything is allocated"),
        (
            "allocator waste",
            held.waste_bytes,
            "what the allocator holds beside activations, gradients and transients, as a share of them",
        ),
    )
    for name, array, formula in parts:
        own = _RESERVED_FORMULAS.get(name) if fitted else None
        provenance = stack.provenance if own and name != "weight copies" else "derived"
        yield Term(name=name, quantity="memory", value=float(array[0]), formula=own or formula, provenance=provenance)
