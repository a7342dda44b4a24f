"""A record: everything needed to compare a run later, raw samples included."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from txlplan.choices import Outcome, RecordKind
from txlplan.config._schema import STRICT
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.plan_file import Plan
from txlplan.workload import Workload

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Software and code state of a run."""

    __pydantic_config__ = STRICT

    python: str
    """Version of the interpreter."""
    torch: str | None
    """Version of torch as installed; None: not installed."""
    operating_system: str
    """Distribution, kernel and machine."""
    hostname: str
    """Of the machine that supervised the run."""
    driver: str | None = None
    """Version of the accelerator's driver; None: there is none."""
    git_commit: str | None = None
    """Commit of the directory that the run was started in; None: no repository."""
    git_dirty: bool | None = None
    """Whether that directory held changes that were not committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossPoint:
    """One point of a loss curve: mean nats per token, at an optimizer step."""

    __pydantic_config__ = STRICT

    step: int
    """Optimizer step, counted from 1."""
    split: str
    """Part of the data that it was measured on: train, valid, test."""
    loss: float
    """Mean nats per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One run, trial or benchmark repeat; a failed run is a record too."""

    __pydantic_config__ = STRICT

    schema_version: int = SCHEMA_VERSION
    """Of this layout: a document with another version is refused, never guessed at."""
    id: str
    """Sortable by time: `<UTC time>-<random>`."""
    kind: RecordKind = "run"
    """A run proper, a short trial of one plan before it, or one repeat of a benchmark."""
    parent: str | None = None
    """The run a trial belongs to, or the benchmark a repeat belongs to (an id shared by its records)."""
    created_at: str
    """ISO 8601, UTC."""
    finished_at: str | None = None
    """ISO 8601, UTC; None: not finished."""
    outcome: Outcome = "running"
    """How it ended. stopped: somebody asked it to; oom: out of memory."""
    message: str = ""
    """Why, where the outcome is not ok."""
    workload: Workload
    """Model, task and limits."""
    plan: Plan
    """How the workload was run."""
    system: str
    """Id of the system profile it was planned for."""
    stack: str
    """Id of the stack profile it was planned with."""
    device: DeviceProfile
    """As detected on the machine that ran it."""
    n_devices: int = 1
    """Devices that it ran on."""
    environment: Environment
    """Software and code state."""
    process_id: int | None = None
    """Of the process that supervises the run: a `running` record whose process is gone was interrupted."""
    run_directory: str | None = None
    """Where its plan, checkpoints and log lie, on the machine that ran it."""
    weights_from: str | None = None
    """The run directory or checkpoint whose weights it scored, generated with or began to train on; None: its own (or an older
    txlplan did not say)."""
    estimate: Estimate | None = None
    """Made before the run, never changed after."""
    step_s: tuple[float, ...] = ()
    """Raw times of every step, warm-up first."""
    warmup_steps: int = 0
    """How many of `step_s` are warm-up."""
    tokens_per_step: int | None = None
    """Over all devices."""
    tokens_per_s: float | None = None
    """Over all devices: tokens of the steps after warm-up over their time."""
    peak_memory_bytes: int | None = None
    """Fullest device; on a CPU the worker's VmHWM. None: not measured, or there was no step."""
    allocator_peak_bytes: int | None = None
    """Peak that the framework's allocator saw, where it has one; None as above."""
    energy_j: float | None = None
    """Of all devices over all steps and evaluations, as measured by the device; None: not measured."""
    losses: tuple[LossPoint, ...] = ()
    """The loss curve."""
    perplexity: float | None = None
    """Of the evaluated or scored split."""
    bits_per_character: float | None = None
    """Of the evaluated or scored split."""
    text: str | None = None
    """What was generated."""

    @property
    def has_result(self) -> bool:
        """Whether it tells anything to set beside an estimate: at least one step, or that memory ran out."""
        return bool(self.step_s) or self.outcome == "oom"

    @property
    def group(self) -> str:
        """Id of the run, or of what its trials or a benchmark's repeats belong to."""
        return self.id if self.kind == "run" else self.parent or self.id

    def may_use_weights_of(self, run: Record) -> bool:
        """Whether its weights are those of that run, or nobody said whose they are."""
        if self.weights_from is None:
            return True
        if run.run_directory is None:
            return False
        ours, its = (Path(os.path.normpath(path)) for path in (self.weights_from, run.run_directory))
        return ours.is_relative_to(its)

    def steady_steps(self) -> tuple[float, ...]:
        """Step times after warm-up."""
        return self.step_s[self.warmup_steps :]
