"""plan.toml: model, workload, plan, data and run settings in one file, complete and runnable anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from txlplan import files
from txlplan.config import parse_toml, read_toml, to_toml
from txlplan.config._schema import STRICT
from txlplan.errors import ConfigError, InputError
from txlplan.plan_file._plan import Plan
from txlplan.workload import Workload

SCHEMA_VERSION = 1
MOST_SEEDS = 2**32
"""A seed is less: every random generator takes so many, and those of all processes stay apart from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """What is read."""

    __pydantic_config__ = STRICT

    directory: str
    """A directory that `txlplan data prepare` wrote."""
    split: str = "train"
    """The split to train on or to score."""
    evaluation_split: str | None = None
    """The split to evaluate on while training; None: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How it is run."""

    __pydantic_config__ = STRICT

    directory: str
    """The run directory: plan, checkpoints, log. Created when it does not exist."""
    runner: str = "local"
    device: str = "cpu"
    """cpu or cuda: what the worker computes on."""
    seed: int = 1
    checkpoint_every_steps: int = 500
    evaluate_every_steps: int | None = None
    log_every_steps: int = 10
    warmup_steps: int = 3
    """Steps that the record marks as warm-up: timed, kept, and left out of throughput."""
    checkpoint: str | None = None
    """A run directory or checkpoint whose weights are scored, generated with, or trained on from."""
    deterministic: bool = True

    def __post_init__(self) -> None:
        if self.checkpoint_every_steps < 1 or self.log_every_steps < 1 or self.warmup_steps < 0:
            raise InputError("checkpoint_every_steps and log_every_steps must be at least 1, warmup_steps zero or more")
        if not 0 <= self.seed < MOST_SEEDS:
            raise InputError(f"seed = {self.seed} must be zero or more and less than 2^32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How text is generated."""

    __pydantic_config__ = STRICT

    prompt: str = "\n"
    more_prompts: tuple[str, ...] = ()
    """Further texts to continue, of any length, each beside `prompt` in rows of its own."""
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    """Draw from the fewest likeliest tokens that together have this probability; None: from all."""
    repetition_penalty: float = 1.0
    """Factor of the log-probabilities of tokens that the text holds already; 1: none."""
    stop: tuple[str, ...] = ()
    """A row ends before the first of these."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or (self.top_k is not None and self.top_k < 1):
            raise InputError("temperature must be zero or more (0: greedy) and finite, top_k at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p} must be more than 0 and at most 1")
        if not 1 <= self.repetition_penalty < math.inf:
            raise InputError(f"repetition_penalty = {self.repetition_penalty} must be at least 1")
        if "" in self.stop:
            raise InputError("stop holds an empty string, which is everywhere")

    @property
    def prompts(self) -> tuple[str, ...]:
        """All texts to continue."""
        return (self.prompt, *self.more_prompts)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanFile:
    """Everything a worker needs."""

    __pydantic_config__ = STRICT

    schema_version: int = SCHEMA_VERSION
    system: str
    """Id of the system profile it was planned for."""
    stack: str
    """Id of the stack profile it was planned with."""
    workload: Workload
    plan: Plan
    data: DataSettings
    run: RunSettings
    sampling: Sampling = field(default_factory=Sampling)


def read_plan_file(path: Path) -> PlanFile:
    """Read plan.toml. Raises ConfigError that names the file and the key."""
    raw = read_toml(path)
    version = raw.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        direction = "newer" if isinstance(version, int) and version > SCHEMA_VERSION else "not"
        raise ConfigError(
            f"{path}: schema_version {version!r} is {direction} one that this txlplan reads ({SCHEMA_VERSION})",
            hint="make the plan again with `txlplan plan`",
        )
    return parse_toml(PlanFile, raw, str(path))


def write_plan_file(path: Path, plan_file: PlanFile) -> None:
    """Write plan.toml, atomically; `read_plan_file` gives back an equal value.

    A plan that this version can cost and not run says so at its top. Raises InputError where `path` cannot be written.
    """
    reasons = [f"#   {reason}\n" for reason in plan_file.plan.not_runnable()]
    mark = "# This version of txlplan can estimate this plan, but not run it:\n" if reasons else ""
    files.write_text(path, "".join([mark, *reasons, "\n" if reasons else "", to_toml(plan_file)]))
