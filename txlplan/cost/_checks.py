"""Plans that a cluster cannot run, or that this version cannot cost: the first is refused by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from txlplan.cost._plans import NAMES, Plans, code
from txlplan.errors import InputError
from txlplan.hardware import Cluster, StackProfile
from txlplan.workload import Workload

Refusal = tuple[npt.NDArray[np.bool_], str, str | None]
"""Which plans, why (a template over the plan), and a hint."""


def check(plans: Plans, cluster: Cluster, workload: Workload, stack: StackProfile) -> None:
    """Raise InputError for the first plan that cannot be. What refuses every plan is told before what refuses a few."""
    for wrong, message, hint in sorted(_refusals(plans, cluster, workload, stack), key=lambda refusal: not refusal[0].all()):
        if wrong.any():
            plan = plans[int(np.flatnonzero(wrong)[0])]
            raise InputError(message.format(plan=plan), hint=hint)


def allowed(plans: Plans, cluster: Cluster, workload: Workload, stack: StackProfile) -> npt.NDArray[np.bool_]:
    """Which of the plans `check` would take, [candidates]."""
    found = np.ones(len(plans), dtype=bool)
    for wrong, _, _ in _refusals(plans, cluster, workload, stack):
        found &= ~wrong
    return found


def _refusals(plans: Plans, cluster: Cluster, workload: Workload, stack: StackProfile) -> Iterator[Refusal]:
    yield from _devices(plans, cluster)
    yield from _divisions(plans, workload)
    yield from _states(plans, cluster, stack)
    yield from _attention(plans, cluster, workload, stack)
    yield from _tasks(plans, workload, stack)


def _devices(plans: Plans, cluster: Cluster) -> Iterator[Refusal]:
    beyond_data = plans.n_devices // plans.data_parallel
    if cluster.device.kind == "cpu":
        message = "a CPU runs data parallelism only, not tensor_parallel = {plan.tensor_parallel}, pipeline_parallel = "
        message += "{plan.pipeline_parallel}, context_parallel = {plan.context_parallel}"
        yield beyond_data > 1, message, None
        return
    many = plans.n_devices > cluster.n_devices
    yield (
        many & (beyond_data == 1),
        f"data_parallel = {{plan.data_parallel}}, but {cluster.system.id} has {cluster.n_devices} devices",
        None,
    )
    yield many, f"the plan needs {{plan.n_devices}} devices, but {cluster.system.id} has {cluster.n_devices}", None


def _divisions(plans: Plans, workload: Workload) -> Iterator[Refusal]:
    model = workload.model
    for name in ("n_head", "d_inner"):
        size = getattr(model, name)
        yield (
            size % plans.tensor_parallel != 0,
            f"tensor_parallel = {{plan.tensor_parallel}} does not divide {name} = {size}",
            None,
        )
    words = min(model.cluster_sizes)
    yield plans.tensor_parallel > words, f"tensor_parallel = {{plan.tensor_parallel}}, but a cluster has {words} words", None
    for name in ("tgt_len", "mem_len"):
        size = getattr(model, name)
        message = f"context_parallel = {{plan.context_parallel}} does not divide {name} = {size}"
        yield size % plans.context_parallel != 0, message, None
    message = f"pipeline_parallel = {{plan.pipeline_parallel}}, but the model has {model.n_layer} layers"
    yield plans.pipeline_parallel > model.n_layer, message, None
    most = np.where(
        plans.virtual_stages > 1, -(-model.n_layer // plans.pipeline_parallel), model.n_layer - plans.pipeline_parallel + 1
    )
    message = f"checkpointed_layers = {{plan.checkpointed_layers}}, but no stage has so many of the {model.n_layer} layers"
    yield plans.checkpointed_layers > most, message, "leave checkpointed_layers out to checkpoint all"
    parts = plans.pipeline_parallel * plans.virtual_stages
    interleaved = plans.virtual_stages > 1
    message = (
        f"virtual_stages = {{plan.virtual_stages}} of {{plan.pipeline_parallel}} stages do not divide {model.n_layer} layers"
    )
    yield interleaved & (model.n_layer % parts != 0), message, None
    message = "accumulation = {plan.accumulation} is no multiple of pipeline_parallel = {plan.pipeline_parallel}"
    yield interleaved & (plans.accumulation % plans.pipeline_parallel != 0), message, "interleaved stages need it to be"


def _states(plans: Plans, cluster: Cluster, stack: StackProfile) -> Iterator[Refusal]:
    if stack.kernels is None:
        lacking = [place for place, name in enumerate(NAMES["precision"]) if cluster.device.peak(name) is None]
        yield (
            np.isin(plans.precision, lacking),
            f"{cluster.device.name} has no {{plan.precision}}",
            cluster.device.known_precisions(),
        )
    if stack.gradient_sync == "none":
        yield plans.zero_stage > 0, f"zero_stage = {{plan.zero_stage}}: stack {stack.id} exchanges no gradients", None
    if cluster.device.kind == "cpu":
        yield plans.offload != 0, "offload = '{plan.offload}': a CPU has no other host", None


def _attention(plans: Plans, cluster: Cluster, workload: Workload, stack: StackProfile) -> Iterator[Refusal]:
    compiled = plans.attention == code("attention", "compiled")
    has_code = cluster.device.kind == "cpu" and stack.implementation == "fast" and workload.task != "generate"
    hint = '--attention fast (in a plan file, attention = "fast") is for everything'
    asked = f"to {workload.task} on {cluster.device.name} by stack {stack.id}"
    message = f"attention = 'compiled': there is code to train and to score on a CPU by our own stack; this is {asked}"
    yield compiled & (not has_code), message, hint
    message = "attention = 'compiled': it sees all positions, and context_parallel = {plan.context_parallel} shares them out"
    yield compiled & (plans.context_parallel > 1), message, hint
    message = "attention = 'compiled': there is code for fp32 and bf16, not for {plan.precision}"
    yield compiled & ~np.isin(plans.precision, [code("precision", "fp32"), code("precision", "bf16")]), message, hint


def _tasks(plans: Plans, workload: Workload, stack: StackProfile) -> Iterator[Refusal]:
    captures = workload.task == "train" and stack.implementation == "fused"
    if stack.mode != "compiled" and workload.task != "generate" and not captures:
        message = f"compile = true: stack {stack.id} is {stack.mode}, and no compiled step to {workload.task} is known of it"
        yield plans.compile != 0, message, "leave compile (--compile-step) out"
    if workload.task == "train":
        message = "compile = true: graphs of layers are for one device, and compute nothing again"
        checkpointed = plans.activation_checkpointing != 0
        yield captures & (plans.compile != 0) & ((plans.n_devices > 1) | checkpointed), message, None
        return
    yield plans.accumulation > 1, "accumulation = {plan.accumulation}: only training accumulates", None
    message = "activation_checkpointing = '{plan.activation_checkpointing}': only training keeps activations"
    yield plans.activation_checkpointing != 0, message, None
    training = (plans.pipeline_parallel > 1) | (plans.zero_stage > 0) | (plans.offload != 0)
    yield training, f"pipeline_parallel, zero_stage and offload are for training, not to {workload.task}", None
    if workload.task == "generate":
        yield (
            plans.context_parallel > 1,
            "context_parallel = {plan.context_parallel}: generation adds one token at a time",
            None,
        )
