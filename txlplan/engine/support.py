"""What of a plan file this version cannot execute, known before any process starts.

The launcher asks too: torch is imported for attention in C++ in bf16 alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from txlplan.choices import Precision, Task
from txlplan.errors import InputError
from txlplan.plan_file import Plan, PlanFile
from txlplan.resources import cpp_compiler

DEVICES = ("cpu", "cuda")
NO_COMPILER = "no C++ compiler is found (g++, or what CXX names)"
_OF_OWN_ATTENTION: tuple[Precision, ...] = ("fp32", "bf16")


def unsupported(plan_file: PlanFile) -> list[str]:
    """One sentence for each thing that this version does not execute; empty when the worker can start."""
    return [
        *plan_file.plan.not_runnable(),
        *_precision(plan_file),
        *_batches(plan_file),
        *_task(plan_file),
    ]


def require_supported(plan_file: PlanFile) -> None:
    """Raises InputError that names everything this version cannot execute."""
    if problems := unsupported(plan_file):
        raise InputError(
            "this version of txlplan cannot execute the plan: " + "; ".join(problems),
            hint="plan again with `txlplan plan --runnable`, or change what is named in the plan file",
        )


def _precision(plan_file: PlanFile) -> Iterator[str]:
    device = plan_file.run.device
    if device not in DEVICES:
        yield f"run.device = {device!r}: this version computes on {' or '.join(DEVICES)}"
    if plan_file.plan.precision == "tf32" and device == "cpu":
        yield "plan.precision = 'tf32': a CPU has no TF32 units; use fp32"


def _batches(plan_file: PlanFile) -> Iterator[str]:
    wanted, planned = plan_file.workload.global_batch, plan_file.plan.global_batch
    if plan_file.workload.task == "train" and wanted is not None and wanted != planned:
        yield (
            f"workload.global_batch = {wanted}, but plan.micro_batch x accumulation x data_parallel = {planned}: "
            "the two must be equal"
        )


def _task(plan_file: PlanFile) -> Iterator[str]:
    workload, plan = plan_file.workload, plan_file.plan
    if workload.task != "train" and plan.accumulation > 1:
        yield f"plan.accumulation = {plan.accumulation}: only training accumulates gradients; use 1 to {workload.task}"
    if workload.task != "train" and plan_file.run.checkpoint is None:
        yield f"run.checkpoint is missing: name the run directory or checkpoint whose weights are to {workload.task}"
    if plan.compile:
        yield from _compile(plan_file)
    if plan.attention == "compiled":
        yield from _own_attention(plan_file)
    if workload.task == "generate" and plan.data_parallel > 1:
        yield f"plan.data_parallel = {plan.data_parallel}: this version generates on one device"


def _own_attention(plan_file: PlanFile) -> Iterator[str]:
    task, precision, device = plan_file.workload.task, plan_file.plan.precision, plan_file.run.device
    if task == "generate" or device != "cpu" or precision not in _OF_OWN_ATTENTION:
        asked = f"to {task} in {precision} on {device}"
        yield f"plan.attention = 'compiled': there is code to train and to score in fp32 or bf16 on a CPU, not {asked}"
    elif lacking := own_attention_lacks(precision, task):
        yield f"plan.attention = 'compiled': {lacking}; attention = \"fast\" needs none"


def own_attention_lacks(precision: Precision, task: Task) -> str | None:
    """What attention in C++ needs for a task of a plan in some precision, and this machine has not."""
    if precision == "bf16" and _computed(precision, task) == "bf16" and not multiplies_bf16():
        return "in bf16 there is code for CPUs with AVX-512's products of bf16, which this one lacks or is told not to use"
    return None if cpp_compiler() else NO_COMPILER


def own_attention() -> tuple[Precision, ...]:
    """Precisions that this machine computes attention in C++ in."""
    return tuple(precision for precision in _OF_OWN_ATTENTION if own_attention_lacks(precision, "train") is None)


def _computed(precision: Precision, task: Task) -> Precision:
    from txlplan.nn._widened import has_fast_bf16

    return Plan(micro_batch=1, precision=precision).computes_in(task, bf16_units=has_fast_bf16())


def multiplies_bf16() -> bool:
    """Whether attention in C++ has a CPU's instructions for bf16 here."""
    import torch

    from txlplan.nn._attention_code import has_attention_code

    return has_attention_code(torch.device("cpu"), torch.bfloat16)


def _compile(plan_file: PlanFile) -> Iterator[str]:
    """The step of a token is compiled; layers that train on a GPU are captured as graphs."""
    task, plan = plan_file.workload.task, plan_file.plan
    if task == "score" or (task == "train" and plan_file.run.device != "cuda"):
        where = " on a CPU" if task == "train" else ""
        yield f"plan.compile = true: this version does not compile the step to {task}{where}"
    elif task == "train" and plan.activation_checkpointing != "none":
        yield f"plan.compile = true: not with activation_checkpointing = {plan.activation_checkpointing!r}"
    elif task == "train" and plan.n_devices > 1:
        yield f"plan.compile = true: this version captures the layers of one device only, not of {plan.n_devices}"
