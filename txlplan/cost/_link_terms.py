"""Terms of what passes between devices, and of the waiting that comes of it."""

from __future__ import annotations

from collections.abc import Iterator

from txlplan.cost._evaluated import Evaluated
from txlplan.estimates import Term
from txlplan.hardware import StackProfile
from txlplan.plan_file import Plan
from txlplan.units import format_bytes, format_s


def link_terms(found: Evaluated, stack: StackProfile, plan: Plan) -> Iterator[Term]:
    """Of `plan`, the first: gradients, activations, keys and values, messages between stages, bubble, offload."""
    position, steps = found.positions[int(found.slowest[0])].time, float(found.plans.accumulation[0])
    settings = found.layout.settings
    yield _all_reduce(found, stack, plan.zero_stage)
    others = (
        (
            "tensor-parallel all-reduce",
            steps * float(position.tensor_s[0]),
            f"{settings.tensor_parallel} devices: two of B·T·D a layer each way, embedding, loss",
        ),
        (
            "context-parallel gather",
            steps * float(position.context_s[0]),
            f"{settings.context_parallel} devices: keys and values of all positions a layer, and their gradients",
        ),
        (
            "pipeline messages",
            steps * float(position.message_s[0]),
            f"hidden states and gradients to the next of {plan.pipeline_parallel} stages, {plan.virtual_stages} parts each",
        ),
        (
            "pipeline bubble",
            float(found.bubble_s[0]),
            f"(sum of {plan.pipeline_parallel} stages − the slowest) / {plan.virtual_stages}",
        ),
        ("optimizer offload", float(found.update.offload_s[0]), "gradients to the host, its update, parameters back"),
    )
    for name, value, formula in others:
        yield Term(name=name, quantity="time", value=value, formula=formula, provenance="derived", bound="link")


def _all_reduce(found: Evaluated, stack: StackProfile, zero: int) -> Term:
    sent = found.exchange
    ranks, payload = int(sent.ranks[0]), float(sent.payload_bytes[0])
    hides = "forward and backward hide" if zero > 1 else "backward hides"
    often = f" as {float(sent.times[0]):.1f} of these (ZeRO {zero})" if zero > 1 else ""
    return Term(
        name="all-reduce",
        quantity="time",
        value=float(found.exposed_s[0]),
        formula=f"ring over {ranks}: 2·({ranks} − 1)·(latency + {format_bytes(payload)} / ({ranks} × bus bandwidth))"
        + (", memory traffic and waiting" if stack.kernels or found.layout.cluster.device.kind == "cpu" else "")
        + often
        + f" = {format_s(float(sent.communication_s[0]))}, less what {hides}",
        provenance="derived" if stack.kernels is None else stack.provenance,
        bound="link",
    )
