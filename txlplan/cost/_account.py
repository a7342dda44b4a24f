"""What the op stream says of one process of our own module, in the terms in which a trace of it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from txlplan.cost._build import build
from txlplan.cost._ends import zipf_shares
from txlplan.cost._evaluated import evaluate
from txlplan.cost._groups import groups
from txlplan.cost._plans import Plans
from txlplan.hardware import Cluster, StackProfile
from txlplan.model import parameter_count
from txlplan.plan_file import Plan
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Of one step of one process on a CPU."""

    parameters: int
    forward_flops: float
    backward_flops: float
    """Recomputation of activation checkpointing included."""
    saved_bytes: float
    """Activations that one micro-batch keeps for its backward."""
    peak_bytes: float
    """Of tensors: without the process's context and what the allocator wastes."""
    peak_operation: str
    """The operation around which that is, and its phase."""


def tail_targets(workload: Workload, plan: Plan) -> tuple[int, ...]:
    """How many targets of a micro-batch are words of each further cluster, by Zipf's law."""
    rows = plan.micro_batch * workload.model.tgt_len
    return tuple(round(rows * share) for share in zipf_shares(workload.model))


def account(
    workload: Workload, cluster: Cluster, stack: StackProfile, plan: Plan, tail_shares: Sequence[float] | None = None
) -> Account:
    """As `estimate` costs the plan, but for a CPU's kernels, where dropout draws its masks first, and for weights as they are,
    which a CPU with units for bf16 packs for single tokens.

    `tail_shares`: share of the targets in each further cluster of an adaptive softmax; None: by Zipf's law.
    """
    plans = Plans.of([plan])
    ((layout, _),) = groups(plans, workload, cluster, stack)
    shares = None if tail_shares is None else tuple(tail_shares)
    layout = replace(layout, settings=replace(layout.settings, fused_dropout=False, bf16_units=False, tail_shares=shares))
    found = evaluate(layout, stack, plans)
    held = found.positions[int(found.fullest[0])].held
    stream = build(replace(layout.settings, checkpointing=layout.kind), np.array([float(plan.micro_batch)]))
    steps, row = float(plan.accumulation), int(held.row[0])
    return Account(
        parameters=parameter_count(workload.model),
        forward_flops=steps * float(stream.total(stream.flops, "forward")[0]),
        backward_flops=steps * float(stream.total(stream.flops, "recompute", "backward")[0]),
        saved_bytes=float(stream.total(stream.saved_bytes, "forward")[0]) if layout.training else 0.0,
        peak_bytes=float((held.total_bytes - held.context_bytes - held.waste_bytes)[0]),
        peak_operation=f"{found.parts.stream.names[row]} ({found.parts.stream.phases[row]})",
    )
