"""What a comparison assumes beside speed and price: power, life, use, failures. Data with sources, like everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from txlplan.config._schema import STRICT
from txlplan.units import BYTES_PER_S, DURATION, USD_PER_J


@dataclass(frozen=True, kw_only=True, slots=True)
class Economics:
    """One file of profiles/economics."""

    __pydantic_config__ = STRICT

    id: str
    name: str
    date: str
    """When the figures were noted, ISO."""
    electricity_usd_per_j: Annotated[float, USD_PER_J]
    """Price of energy at the meter."""
    pue: float
    """Power usage effectiveness: energy at the meter over energy of the machines (cooling and distribution are the rest)."""
    life_years: float
    """Years over which what is bought is written off, in equal parts and to nothing."""
    utilisation: float
    """Share of the hours of that life in which the machine does paid work, in (0, 1]."""
    start_s: Annotated[float, DURATION]
    """From the command to the first step, compilation included."""
    restart_s: Annotated[float, DURATION]
    """From a failure to the first step after it."""
    device_failure_s: Annotated[float, DURATION]
    """Mean time between failures, per device."""
    spot_interruption_s: Annotated[float, DURATION]
    """Mean time between interruptions of one spot node."""
    storage_bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S]
    """At which a checkpoint is written, all processes together."""
    evaluate_every_steps: int
    """Optimizer steps between evaluations; 0: none."""
    evaluation_tokens: int
    """Tokens of one evaluation."""
    shared_error: float
    """Share of the variance of log(measured / predicted) that candidates of one stack have in common, in [0, 1]."""
    shared_device_error: float
    """Of what candidates of one stack do not have in common, the share that those of one device do, in [0, 1]."""
    idle_share: float
    """What a device that waits draws over its rated power, where its idle power is unknown, in [0, 1]."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source by key."""

    def __post_init__(self) -> None:
        # Comparisons are written so that NaN fails them.
        if not (self.pue >= 1 and self.pue < float("inf")):
            raise ValueError(f"pue = {self.pue} must be at least 1")
        if not (0 < self.life_years < float("inf")):
            raise ValueError(f"life_years = {self.life_years} must be more than zero")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation = {self.utilisation} must be in (0, 1]")
        for name in ("shared_error", "shared_device_error", "idle_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be in [0, 1]")
        if min(self.device_failure_s, self.spot_interruption_s) <= 0:
            raise ValueError("device_failure and spot_interruption must be more than zero")
        if self.evaluate_every_steps < 0 or self.evaluation_tokens < 0:
            raise ValueError("evaluate_every_steps and evaluation_tokens must be zero or more")
