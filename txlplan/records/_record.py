"""A record: everything needed to compare a run later, raw samples included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from txlplan.config._schema import STRICT
from txlplan.estimates import Estimate
from txlplan.hardware import DeviceProfile
from txlplan.plan_file import Plan
from txlplan.workload import Workload

SCHEMA_VERSION = 1
Outcome = Literal["running", "ok", "oom", "failed", "stopped"]
RecordKind = Literal["run", "trial", "bench"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Software and code state of a run."""

    __pydantic_config__ = STRICT

    python: str
    torch: str | None
    operating_system: str
    hostname: str
    driver: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LossPoint:
    """One point of a loss curve: mean nats per token, at an optimizer step."""

    __pydantic_config__ = STRICT

    step: int
    split: str
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One run, trial or benchmark repeat; a failed run is a record too."""

    __pydantic_config__ = STRICT

    schema_version: int = SCHEMA_VERSION
    id: str
    """Sortable by time: `<UTC time>-<random>`."""
    kind: RecordKind = "run"
    parent: str | None = None
    """The run a trial belongs to, or the benchmark a repeat belongs to (an id shared by its records)."""
    created_at: str
    """ISO 8601, UTC."""
    finished_at: str | None = None
    outcome: Outcome = "running"
    message: str = ""
    workload: Workload
    plan: Plan
    system: str
    stack: str
    device: DeviceProfile
    """As detected on the machine that ran it."""
    n_devices: int = 1
    environment: Environment
    process_id: int | None = None
    """Of the process that supervises the run: a `running` record whose process is gone was interrupted."""
    run_directory: str | None = None
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
    """Fullest device; on a CPU the worker's VmHWM."""
    allocator_peak_bytes: int | None = None
    """Peak that the framework's allocator saw, where it has one."""
    energy_j: float | None = None
    """Of all devices over all steps, as measured by the device; None: not measured."""
    losses: tuple[LossPoint, ...] = ()
    perplexity: float | None = None
    bits_per_character: float | None = None
    """Of the evaluated or scored split."""
    text: str | None = None
    """What was generated."""

    def steady_steps(self) -> tuple[float, ...]:
        """Step times after warm-up."""
        return self.step_s[self.warmup_steps :]
