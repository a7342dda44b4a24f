"""`txlplan estimate --trace`: what the op stream says of a plan, beside a trace of the worker's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from txlplan.errors import InputError
from txlplan.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.plan_file import Plan
    from txlplan.planner import Candidate
    from txlplan.workload import Workload

UNSEEN = (
    "autocast's lists on CUDA: there norms give fp32, here they keep the precision of what they are given",
    "masks of dropout, which CUDA's kernels draw themselves",
    "what a kernel takes for itself (packed weights, partial sums)",
    "gradients that autograd adds in place: under a tracer it makes a new tensor",
    "the process's context",
    "rounding and waste of the allocator",
    "buckets of gradients that several processes exchange",
)
"""What counts on a real device and no trace on a CPU shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """One figure, from the op stream and from the trace."""

    name: str
    unit: str
    analytic: float
    traced: float
    tolerance: float
    """Largest difference, as a share of the traced figure, that is expected."""

    @property
    def difference(self) -> float | None:
        """Of the analytic figure, as a share of the traced one; None where that is zero and the other is not."""
        if self.traced == 0:
            return 0.0 if self.analytic == 0 else None
        return self.analytic / self.traced - 1

    @property
    def within(self) -> bool:
        """Whether the difference is as small as expected."""
        return self.difference is not None and abs(self.difference) <= self.tolerance


EXACT = 1e-9
"""FLOPs are sums of integers in floating point."""
SAVED, PEAK = 0.02, 0.03


def compare(workload: Workload, target: Candidate, plan: Plan) -> tuple[Quantity, ...]:
    """Parameters, FLOPs and bytes of one process. Raises InputError for what our own code does not run on a CPU."""
    from dataclasses import replace

    from txlplan.cost import account, tail_targets
    from txlplan.engine.own_attention import require_code
    from txlplan.engine.trace import trace

    if target.stack.implementation == "published":
        raise InputError(
            f"stack {target.stack.id} runs code of others, and --trace runs ours",
            hint="--stack txlplan-cpu or txlplan-cuda describes ours",
        )
    unrunnable = list(plan.not_runnable())
    if unrunnable:
        raise InputError(f"--trace runs the step of a worker, and {unrunnable[0]}")
    if plan.activation_checkpointing not in ("none", "full") or plan.checkpointed_layers is not None:
        raise InputError(
            "--trace compares whole layers", hint="--activation-checkpointing none or full, without --checkpointed-layers"
        )
    precision = replace(plan, compile=False).computes_in(workload.task, bf16_units=target.cluster.device.multiplies_bf16)
    if plan.attention == "compiled":
        require_code(precision)
    alone = replace(
        plan,
        data_parallel=1,
        compile=False,
        precision="fp32" if precision == "tf32" else precision,
        attention=plan.attention if target.stack.implementation in ("fast", "fused") else "reference",
    )
    targets = tail_targets(workload, alone)
    rows = alone.micro_batch * workload.model.tgt_len
    expected = account(workload, target.cluster, target.stack, alone, [count / rows for count in targets])
    found = trace(workload, alone, targets, fused=target.stack.implementation == "fused")
    return (
        Quantity(name="parameters", unit="", analytic=expected.parameters, traced=found.parameters, tolerance=0.0),
        Quantity(
            name="forward FLOPs", unit="FLOP", analytic=expected.forward_flops, traced=found.forward_flops, tolerance=EXACT
        ),
        Quantity(
            name="backward FLOPs", unit="FLOP", analytic=expected.backward_flops, traced=found.backward_flops, tolerance=EXACT
        ),
        Quantity(name="saved activations", unit="B", analytic=expected.saved_bytes, traced=found.saved_bytes, tolerance=SAVED),
        Quantity(name="peak memory", unit="B", analytic=expected.peak_bytes, traced=found.peak_bytes, tolerance=PEAK),
    )


def as_document(quantities: tuple[Quantity, ...]) -> dict[str, Any]:
    """For `--json`."""
    from txlplan.config import to_plain

    rows = [{**to_plain(each), "difference": each.difference, "within": each.within} for each in quantities]
    return {"quantities": rows, "within": all(each.within for each in quantities), "unseen": list(UNSEEN)}


def print_trace(console: Console, quantities: tuple[Quantity, ...]) -> None:
    """As a table, differences that are too large marked, and then what a trace cannot see."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for header in ("one step of one process", "analytic", "traced", "difference", "expected", ""):
        table.add_column(header, justify="left" if header in ("one step of one process", "") else "right")
    for each in quantities:
        text = format_bytes if each.unit == "B" else format_count
        gap = "unknown" if each.difference is None else f"{each.difference:+.2%}"
        allowed = "equal" if each.tolerance <= EXACT else f"within {each.tolerance:.0%}"
        table.add_row(each.name, text(each.analytic), text(each.traced), gap, allowed, "" if each.within else "DIFFERS")
    console.print()
    console.print(table)
    console.print("A trace on a CPU does not see:", markup=False, highlight=False)
    for line in UNSEEN:
        console.print(f"- {line}", markup=False, highlight=False)
