"""What a benchmark runs: every combination of models and plans, as `bench.toml` or the command line states them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from txlplan.choices import AttentionPath, Checkpointing, Precision, Task
from txlplan.config import from_plain, parse_toml, read_toml
from txlplan.config._schema import STRICT
from txlplan.errors import InputError
from txlplan.model import ModelConfig, models
from txlplan.plan_file import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """One bench.toml. Each list is an axis; a case is one combination, a repeat one run of a case."""

    __pydantic_config__ = STRICT

    model: tuple[str, ...]
    """Ids of profiles/models, or .toml files."""
    task: Task = "train"
    precision: tuple[Precision, ...] = ("fp32",)
    micro_batch: tuple[int, ...] = (8,)
    accumulation: tuple[int, ...] = (1,)
    activation_checkpointing: tuple[Checkpointing, ...] = ("none",)
    attention: tuple[AttentionPath, ...] = ("fast",)
    """How attention is computed; reference: only in training; compiled: by C++ of our own, in fp32 or bf16 on a CPU, but not in
    generating."""
    compile: tuple[bool, ...] = (False,)
    """Of a token's step, or (train, on a GPU) layers as graphs of kernels."""
    threads: tuple[int, ...] = ()
    """CPU threads of a process; empty: all cores. No effect on GPUs."""
    devices: tuple[int, ...] = (1,)
    """Data-parallel processes; more than one start under torchrun."""
    steps: int = 20
    """Timed steps of a repeat, after warm-up."""
    warmup_steps: int = 3
    repeats: int = 3
    data: str | None = None
    """A prepared data directory; None: synthetic text with each model's vocabulary size."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps = {self.warmup_steps} must be zero or more")
        for name in _AXES:
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} is an empty list: it needs at least one value")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)} names a value twice: raise 'repeats' to run it more often")
        training = max(self.accumulation) > 1 or self.activation_checkpointing != ("none",)
        if self.task != "train" and training:
            raise ValueError(f"accumulation and activation_checkpointing have no effect on task {self.task!r}")
        if refused := set(self.attention) - _ATTENTION[self.task]:
            raise ValueError(f"attention = {sorted(refused)} has no effect on task {self.task!r}")


_ATTENTION: dict[Task, set[AttentionPath]] = {
    "train": {"fast", "reference", "compiled"},
    "score": {"fast", "compiled"},
    "generate": {"fast"},
}
_AXES = ("model", "precision", "micro_batch", "accumulation", "activation_checkpointing", "attention", "compile", "devices")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One model and one plan."""

    model: ModelConfig
    plan: Plan


def read_matrix(path: Path) -> Matrix:
    """Read bench.toml. Raises ConfigError that names the file and the key."""
    return parse_toml(Matrix, read_toml(path), str(path))


def matrix_of(values: Mapping[str, Any], where: str) -> Matrix:
    """A matrix from plain values; `where` names their place in errors. Raises ConfigError."""
    return from_plain(Matrix, values, where)


def cases(matrix: Matrix, *, cores: int | None) -> tuple[Case, ...]:
    """Every combination; `cores` is the machine's where it computes on its CPU, else None.

    Several processes on a CPU share its cores out evenly where no number of threads is given.
    """
    if matrix.threads and cores is None:
        raise InputError("threads have no effect on a GPU", hint="leave --threads out")
    configs = [models.get(name) for name in matrix.model]
    axes = itertools.product(
        configs,
        matrix.precision,
        matrix.micro_batch,
        matrix.accumulation,
        matrix.activation_checkpointing,
        matrix.attention,
        matrix.compile,
        matrix.devices,
    )
    return tuple(
        Case(
            model=config,
            plan=Plan(
                micro_batch=micro_batch,
                accumulation=accumulation,
                precision=precision,
                data_parallel=devices,
                activation_checkpointing=checkpointing,
                attention=attention,
                compile=compiled,
                threads=threads,
            ),
        )
        for config, precision, micro_batch, accumulation, checkpointing, attention, compiled, devices in axes
        for threads in (matrix.threads or (None if cores is None else max(1, cores // max(1, devices)),))
    )
