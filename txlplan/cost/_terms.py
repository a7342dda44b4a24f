"""Named summands of one plan's step time and peak memory, each with its formula, provenance and bound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from txlplan.cost._evaluated import Evaluated
from txlplan.cost._time import REGIONS, peak_flops_per_s
from txlplan.estimates import Bound, Term
from txlplan.hardware import DeviceProfile, StackProfile
from txlplan.units import format_bytes, format_bytes_per_s, format_count, format_flops_per_s, format_s


def terms(part: Evaluated, place: int, device: DeviceProfile, stack: StackProfile) -> tuple[Term, ...]:
    """Time terms that add up to the step, memory terms that add up to the peak; zero ones are left out."""
    found = [
        *_device_terms(part, place, device, stack),
        *_host_and_link_terms(part, place, device, stack),
        *_memory_terms(part, place, stack),
    ]
    return tuple(term for term in found if term.value != 0)


def _device_terms(part: Evaluated, place: int, device: DeviceProfile, stack: StackProfile) -> Iterator[Term]:
    """One term a group of operations, over all micro-batches of a step."""
    stream, column = part.stream, int(part.column[place])
    times = _times(part, place)
    seconds = part.time.op_s[:, column] * times
    for group in dict.fromkeys(stream.groups):
        rows = np.array([name == group for name in stream.groups])
        total_s = float(seconds[rows].sum())
        if total_s == 0:
            continue
        computing = rows & part.time.compute_bound[:, column]
        compute_s = float(seconds[computing].sum())
        measured = float((seconds * part.time.measured[:, column])[rows].sum()) >= 0.5 * total_s
        bound: Bound = "compute" if compute_s > total_s / 2 else "bandwidth"
        launches = float((stream.launches[:, column] * times)[rows].sum())
        chosen = computing if bound == "compute" else rows & ~part.time.compute_bound[:, column]
        figure = stream.flops if bound == "compute" else stream.bytes_moved
        amount = float((figure[:, column] * times)[chosen].sum())
        dtype = next(name for name, row in zip(stream.dtypes, chosen, strict=True) if row)
        yield Term(
            name=group,
            quantity="time",
            value=total_s,
            formula=_formula(device, bound, dtype, amount, float(seconds[chosen].sum()), total_s, launches),
            provenance="measured" if measured else "derived" if stack.kernels is None else stack.provenance,
            bound=bound,
        )


def _times(part: Evaluated, place: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How often each operation runs in a step: repetitions × micro-batches, the update once. [ops]"""
    update = part.stream.rows("update")
    repeat = part.stream.repeat[:, int(part.column[place])]
    times: np.ndarray[tuple[int], np.dtype[np.float64]] = repeat * np.where(update, 1.0, part.accumulation[place])
    return times


def _formula(
    device: DeviceProfile, bound: Bound, dtype: str, amount: float, chosen_s: float, total_s: float, launches: float
) -> str:
    if bound == "compute":
        ceiling = peak_flops_per_s(device, dtype)
        quantity, rate = format_flops_per_s(amount).removesuffix("/s"), f"{format_flops_per_s(ceiling)} {dtype}"
    else:
        ceiling = device.memory_bandwidth_bytes_per_s
        quantity, rate = format_bytes(amount), format_bytes_per_s(ceiling)
    share = amount / ceiling / chosen_s if chosen_s else 0.0
    text = f"{quantity} / ({rate} × {share:.2f}), {format_count(launches)} operations"
    rest = total_s - chosen_s
    return f"{text}; the others {format_s(rest)}" if rest > 0.005 * total_s else text


def _host_and_link_terms(part: Evaluated, place: int, device: DeviceProfile, stack: StackProfile) -> Iterator[Term]:
    column, steps = int(part.column[place]), float(part.accumulation[place])
    host_s, dispatched_s = float(part.crowded_s[place]), 0.0
    for region in REGIONS:
        times = 1.0 if region == "update" else steps
        host = float(part.time.host_s[region][column]) * times
        dispatched_s += host
        host_s += float(part.time.region_s[region][column] - part.time.device_s[region][column]) * times
    launches = float((part.stream.launches[:, column] * _times(part, place)).sum())
    formula = f"{format_count(launches)} operations × {format_s(dispatched_s / max(launches, 1.0))}"
    yield Term(
        name="host dispatch",
        quantity="time",
        value=host_s,
        formula=formula if device.kind == "cpu" else f"{formula}, what the device does not hide, per region",
        provenance=stack.provenance if stack.host_op_s is not None or stack.kernels is not None else "derived",
        bound="host",
    )
    yield Term(
        name="unattributed",
        quantity="time",
        value=float(part.unattributed_s[place]),
        formula=f"{stack.unattributed:+.0%} of operations and dispatch, as a whole step showed",
        provenance=stack.provenance,
        bound="host",
    )
    payload = float(part.statics.all_reduce_bytes[place])
    ranks = int(part.data_parallel[place])
    yield Term(
        name="all-reduce",
        quantity="time",
        value=float(part.exposed_s[place]),
        formula=f"ring over {ranks}: 2·({ranks} − 1)·(latency + {format_bytes(payload)} / ({ranks} × bus bandwidth))"
        + (", memory traffic and waiting" if stack.kernels else "")
        + f" = {format_s(float(part.communication_s[place]))}, less what backward hides",
        provenance="derived" if stack.kernels is None else stack.provenance,
        bound="link",
    )


_RESERVED_FORMULAS = {
    "gradients": "parameters × bytes of one",
    "saved activations": "kept for backward, × a fitted share, with the further clusters of the softmax",
    "largest transient": "blocks of the size of all logits, as many as were fitted",
    "weight copies": "an fp32 master and its fp32 gradient for each fp16 parameter (Apex O2)",
    "allocator waste": "cached temporaries of the optimizer, in copies of the largest parameter, as far as there is room",
}
"""Of the terms that a stack's fitted model of the allocator stands behind."""


def _memory_terms(part: Evaluated, place: int, stack: StackProfile) -> Iterator[Term]:
    kept, peak = part.statics, part.peak
    fitted = stack.reserved is not None and "backward" in part.stream.phases
    row = int(peak.row[place])
    at_peak = f"alive at the peak, in {part.stream.names[row]!r} ({part.stream.phases[row]})"
    parts = (
        ("parameters", kept.parameters_bytes, "parameters × bytes of one"),
        ("gradients", peak.gradient_bytes, f"parameters × 4 B, {at_peak}"),
        ("optimizer states", kept.optimizer_bytes, "two fp32 states a parameter (Adafactor: a row and a column a matrix)"),
        (
            "recurrent memory",
            kept.recurrent_memory_bytes,
            "layers × sequences × mem_len × d_model × 4 B, every accumulation chunk",
        ),
        ("saved activations", peak.saved_bytes, f"kept for backward, {at_peak}"),
        ("largest transient", peak.transient_bytes, f"inputs and outputs around {part.stream.names[row]!r}"),
        ("weight copies", kept.weight_copies_bytes, "parameters in the precision of products, kept by autocast"),
        ("context", kept.context_bytes, "the process or device context before anything is allocated"),
        (
            "allocator waste",
            part.allocator_waste_bytes,
            "what the allocator holds beside activations, gradients and transients, as a share of them",
        ),
    )
    for name, array, formula in parts:
        own = _RESERVED_FORMULAS.get(name) if fitted else None
        provenance = stack.provenance if own and name != "weight copies" else "derived"
        yield Term(name=name, quantity="memory", value=float(array[place]), formula=own or formula, provenance=provenance)
