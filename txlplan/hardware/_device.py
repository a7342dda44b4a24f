"""A device: one accelerator, or one machine's CPU, as its data sheet or a probe describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from txlplan.config._schema import STRICT
from txlplan.errors import InputError
from txlplan.units import BYTES, BYTES_PER_S, FLOPS_PER_S, HERTZ, WATTS

Dtype = Literal["fp32", "tf32", "fp16", "bf16"]
Provenance = Literal["datasheet", "measured", "calibrated", "derived"]


IDLE_SHARE = 0.1354
"""Idle over rated power, assumed: the mean of two boards, A100 SXM (55 of 400 W) and V100 SXM2 (40 of 300 W), as nvidia-smi
shows them without work (unverified)."""

_UNITS_GAIN = 1.25
"""Of bf16's rate over fp32's, at least, where a CPU of which no probe told has units for bf16: a choice between 1, of products
that are widened, and the 2 of AVX-512's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProfile:
    """One file of profiles/devices; one *variant* of a part (SXM2-16GB and PCIe-16GB are two)."""

    __pydantic_config__ = STRICT

    id: str
    """The file's stem."""
    name: str
    """As the vendor writes it."""
    kind: Literal["gpu", "cpu", "tpu"]
    vendor: str
    architecture: str
    """Lower case: volta, turing, ampere, ada, hopper, blackwell, zen4, tpu-v3 …"""
    match: tuple[str, ...] = ()
    """Names that NVML, torch or the operating system report for this part; shell wildcards allowed."""
    memory_bytes: Annotated[int, BYTES]
    """Installed memory. For a CPU, what the machine (or its container) may use."""
    memory_usable_bytes: Annotated[int, BYTES] | None = None
    """What one process can allocate, the driver's own share deducted."""
    memory_bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S]
    peak_flops_per_s: Mapping[Dtype, Annotated[float, FLOPS_PER_S]]
    """Dense peak by dtype, with fp32 accumulation; a dtype that the device lacks is left out."""
    cores: int
    """Streaming multiprocessors of a GPU, physical cores of a CPU, tensor cores (MXU groups) of a TPU."""
    clock_hz: Annotated[float, HERTZ] | None = None
    """Boost clock."""
    clock_is_typical: bool = False
    """The boost clock is what the board typically runs at, not the highest that it can (GeForce, Titan, Quadro, RTX)."""
    has_bf16_units: bool | None = None
    """Whether torch has fast products of bf16 on this CPU, as a probe found; None: told by the peaks."""
    cache_bytes: Annotated[int, BYTES] | None = None
    """Last-level cache."""
    compute_capability: str | None = None
    """CUDA compute capability, e.g. "7.0"."""
    power_w: Annotated[float, WATTS] | None = None
    """Rated power (TDP)."""
    power_idle_w: Annotated[float, WATTS] | None = None
    idle_share: float | None = None
    """What it draws while it waits over its rated power, where `power_idle` is unknown; None: IDLE_SHARE, assumed."""
    released: str | None = None
    """Month or day of release, ISO."""
    provenance: Provenance = "datasheet"
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source by key (`"peak.fp16"`, `"memory_bandwidth"`); `default` covers the rest."""
    notes: str = ""

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise InputError(f"cores = {self.cores} must be at least 1")
        if not self.peak_flops_per_s:
            raise InputError("peak must state the FLOP/s of at least one dtype")
        if self.memory_usable_bytes is not None and self.memory_usable_bytes > self.memory_bytes:
            raise InputError("memory_usable is more than memory")
        if self.idle_share is not None and not 0 <= self.idle_share <= 1:
            raise InputError(f"idle_share = {self.idle_share} must be in [0, 1]")
        if self.power_w is not None and self.power_idle_w is not None and self.power_idle_w > self.power_w:
            raise InputError("power_idle is more than power")

    def waiting_w(self) -> float | None:
        """What it draws while it waits: its idle power, or a share of its rated one; None where that is unknown."""
        if self.power_w is None or self.power_idle_w is not None:
            return self.power_idle_w
        return self.power_w * (IDLE_SHARE if self.idle_share is None else self.idle_share)

    def usable_bytes(self) -> int:
        """Memory that a process can allocate: the usable size where known, else the installed one."""
        return self.memory_usable_bytes or self.memory_bytes

    @property
    def multiplies_bf16(self) -> bool:
        """Whether products of bf16 are by units for it. A CPU's without reach fp32's rate at best, as they are widened; other
        devices are taken to have them, and a plan in what they lack is refused elsewhere."""
        if self.kind != "cpu" or self.has_bf16_units is not None:
            return self.has_bf16_units is not False
        return (self.peak("bf16") or 0.0) > _UNITS_GAIN * (self.peak("fp32") or 0.0)

    def known_precisions(self) -> str:
        """`it has fp32, bf16`, a hint for who asked for another."""
        known = f"it has {', '.join(self.peak_flops_per_s)}"
        cut_short = "; a probe that was cut short may have missed one: `txlplan hardware probe`"
        return known + cut_short if self.provenance == "measured" else known

    def peak(self, dtype: str) -> float | None:
        """Peak FLOP/s for a dtype, or None where the device has no such units (it may still emulate them)."""
        return self.peak_flops_per_s.get(dtype)  # type: ignore[call-overload,no-any-return]
