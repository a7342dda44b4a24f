"""A workload: a model plus what is to be done with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from txlplan.choices import Objective, OptimizerName, Schedule, Task
from txlplan.config._schema import STRICT
from txlplan.errors import InputError
from txlplan.model import ModelConfig
from txlplan.units import COUNT, DURATION, USD, WATTS

MOST_SEQUENCES = 2**24
"""Sequences of a step, at most: thousands of times the largest batch that is published, and few enough to be searched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimization:
    """How parameters are updated."""

    __pydantic_config__ = STRICT

    optimizer: OptimizerName = "adamw"
    learning_rate: float = 2.5e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    """Largest gradient norm; None: no clipping."""
    schedule: Schedule = "cosine"
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    decay_rate: float = 0.5
    """Factor per `cycle_steps` (exponential)."""
    cycle_steps: int = 1000
    """Half-life steps of `exponential`, period of `cyclic`."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate = {self.learning_rate} must be more than zero, and finite")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"clip_norm = {self.clip_norm} must be more than zero and finite (leave it out for no clipping)")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas = {list(self.betas)} must be in [0, 1)")
        for name in ("epsilon", "weight_decay", "min_learning_rate", "decay_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} = {getattr(self, name)} must be zero or more, and finite")
        if self.warmup_steps < 0 or self.cycle_steps < 1:
            raise InputError("warmup_steps must be zero or more and cycle_steps at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Model, task and limits. A sequence is one row of a batch: `model.tgt_len` tokens a step."""

    __pydantic_config__ = STRICT

    model: ModelConfig
    task: Task = "train"
    tokens: Annotated[int, COUNT] | None = None
    """Tokens to train on, score or generate, over all devices; None: one pass of the data (score) or not said."""
    global_batch: int | None = None
    """Sequences per optimizer step (train) or segment batch (score, generate), all devices; None: the planner chooses."""
    largest_global_batch: int | None = None
    """With it, training may take any batch from `global_batch` up to it that the planner tries: doublings, and itself."""
    optimization: Optimization = field(default_factory=Optimization)
    objective: Objective = "fastest"
    deadline_s: Annotated[float, DURATION] | None = None
    budget_usd: Annotated[float, USD] | None = None
    power_cap_w: Annotated[float, WATTS] | None = None
    """Most that the rated power of the devices in use may be."""
    memory_headroom: float = 0.05
    """Share of a device's usable memory that a plan must leave free."""
    prompt_len: int = 0
    """Prompt tokens per sequence (generate)."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise InputError(f"tokens = {self.tokens} must be at least 1")
        self._check_batches()
        for name in ("deadline_s", "budget_usd", "power_cap_w"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise InputError(f"{name} = {limit} must be more than zero, and finite")
        if not 0 <= self.memory_headroom < 1:
            raise InputError(f"memory_headroom = {self.memory_headroom} must be in [0, 1)")
        if self.prompt_len < 0:
            raise InputError(f"prompt_len = {self.prompt_len} must be zero or more")

    def _check_batches(self) -> None:
        largest = self.largest_global_batch
        for name in ("global_batch", "largest_global_batch"):
            size = getattr(self, name)
            if size is not None and not 1 <= size <= MOST_SEQUENCES:
                raise InputError(f"{name} = {size} must be at least 1, and at most {MOST_SEQUENCES:,}")
        if largest is None:
            return
        if self.global_batch is None:
            raise InputError(f"largest_global_batch = {largest} needs a global_batch to begin with")
        if largest < self.global_batch:
            raise InputError(f"largest_global_batch = {largest} is less than global_batch = {self.global_batch}")
        if self.task != "train":
            raise InputError("largest_global_batch is for training", hint=f"to {self.task}, leave the batch to the planner")
