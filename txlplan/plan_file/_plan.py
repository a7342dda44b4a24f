"""How a workload runs on a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.choices import AttentionPath, Checkpointing, Precision
from txlplan.config._schema import STRICT
from txlplan.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One point of the planner's space."""

    __pydantic_config__ = STRICT

    micro_batch: int
    """Sequences per device per micro-batch."""
    accumulation: int = 1
    """Micro-batches per optimizer step."""
    precision: Precision = "fp32"
    """fp16 and bf16 keep fp32 parameters and compute under autocast."""
    data_parallel: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    zero_stage: int = 0
    """0: replicated; 1 shards optimizer states, 2 gradients too, 3 parameters too (FSDP)."""
    activation_checkpointing: Checkpointing = "none"
    """full: each layer keeps its input only and runs again in backward."""
    attention: AttentionPath = "fast"
    """reference: the readable path, with every score in memory; both give one result."""
    compile: bool = False
    threads: int | None = None
    """CPU threads a process; None: not a CPU, or all."""

    def __post_init__(self) -> None:
        axes = ("micro_batch", "accumulation", "data_parallel", "tensor_parallel", "pipeline_parallel", "context_parallel")
        for name in axes:
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads = {self.threads} must be at least 1")
        if not 0 <= self.zero_stage <= 3:
            raise InputError(f"zero_stage = {self.zero_stage} must be 0, 1, 2 or 3")

    @property
    def n_devices(self) -> int:
        """Devices the plan occupies."""
        return self.data_parallel * self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def global_batch(self) -> int:
        """Sequences per optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.data_parallel
