"""How a workload runs on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from txlplan.choices import AttentionPath, Checkpointing, Offload, Precision, StatePrecision, Task
from txlplan.config._schema import STRICT
from txlplan.errors import InputError

PARALLEL_AXES = ("data_parallel", "tensor_parallel", "pipeline_parallel", "context_parallel")
"""Axes of the mesh of devices."""
MOST = 2**24
"""Of any number in a plan: thousands of times what anybody runs, and small enough to be counted with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One point of the planner's space."""

    __pydantic_config__ = STRICT

    micro_batch: int
    """Sequences per device per micro-batch."""
    accumulation: int = 1
    """Micro-batches per optimizer step."""
    precision: Precision = "fp32"
    """fp16 and bf16 keep fp32 parameters and compute under autocast; see `computes_in`."""
    data_parallel: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    virtual_stages: int = 1
    """Parts of the layers that each pipeline stage holds, interleaved with those of the others."""
    context_parallel: int = 1
    zero_stage: int = 0
    """0: replicated; 1 shards optimizer states, 2 gradients too, 3 parameters too (FSDP)."""
    activation_checkpointing: Checkpointing = "none"
    """full: each layer keeps its input only and runs again in backward; attention, feed-forward: only that part of it does."""
    checkpointed_layers: int | None = None
    """Layers of each pipeline stage that checkpoint, the first ones; None: all."""
    optimizer_precision: StatePrecision = "fp32"
    """What optimizer states are stored in."""
    offload: Offload = "none"
    """optimizer: states lie in the host's memory, and the host updates them."""
    attention: AttentionPath = "fast"
    """reference: the readable path, with every score in memory; compiled: C++ of our own, to train and to score in fp32 or
    bf16 on a CPU. All give one result."""
    compile: bool = False
    """Of a token's step (generate) the code is compiled; layers that train on a GPU run as graphs of kernels (train)."""
    threads: int | None = None
    """CPU threads a process; None: not a CPU, or all."""

    def __post_init__(self) -> None:
        for name in ("micro_batch", "accumulation", "virtual_stages", "threads", *PARALLEL_AXES):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise InputError(f"{name} = {value} must be at least 1, and at most {MOST:,}")
        if not 0 <= self.zero_stage <= 3:
            raise InputError(f"zero_stage = {self.zero_stage} must be 0, 1, 2 or 3")
        if self.virtual_stages > 1 and self.pipeline_parallel == 1:
            raise InputError(f"virtual_stages = {self.virtual_stages} has no effect without pipeline_parallel")
        if self.checkpointed_layers is not None and (self.checkpointed_layers < 1 or self.activation_checkpointing == "none"):
            raise InputError(
                f"checkpointed_layers = {self.checkpointed_layers} needs activation_checkpointing, and at least 1",
                hint='leave it out for all layers, or choose another activation_checkpointing than "none"',
            )

    @property
    def n_devices(self) -> int:
        """Devices the plan occupies."""
        return self.data_parallel * self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def global_batch(self) -> int:
        """Sequences per optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.data_parallel

    def computes_in(self, task: Task, *, bf16_units: bool) -> Precision:
        """The precision of its products, on a device with or without units for bf16.

        Without, weights of bf16 are widened wherever they are used. What trains keeps half the bytes for that. What scores or
        generates takes the weights as they are instead, in fp32: it holds them once and is faster, though keys and values take
        twice the bytes. Compiled tokens widen what they read on the way, which is half the bytes.
        """
        widens = task == "train" or (task == "generate" and self.compile)
        return "fp32" if self.precision == "bf16" and not (bf16_units or widens) else self.precision

    def not_runnable(self) -> Iterator[str]:
        """One sentence for each setting that can be costed and that the engine does not execute yet; none where it does."""
        for axis in PARALLEL_AXES[1:]:
            if getattr(self, axis) > 1:
                yield f"plan.{axis} = {getattr(self, axis)}: this version executes data parallelism only"
        if self.zero_stage > 0:
            yield f"plan.zero_stage = {self.zero_stage}: this version keeps every state on every device (zero_stage = 0)"
        if self.optimizer_precision != "fp32":
            yield f"plan.optimizer_precision = {self.optimizer_precision!r}: this version keeps optimizer states in fp32"
        if self.offload != "none":
            yield f"plan.offload = {self.offload!r}: this version keeps optimizer states on the device"

    @property
    def runnable(self) -> bool:
        """Whether the engine of this version executes it."""
        return next(self.not_runnable(), None) is None
