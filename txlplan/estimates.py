"""What a plan will take, as plain data: named terms with provenance, and a range with every number.

`cost` computes these for arrays of plans; here is the form in which one of them is shown, stored and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from txlplan.hardware._device import Provenance

Bound = Literal["compute", "bandwidth", "host", "link"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A value and its 80 % interval."""

    value: float
    low: float
    high: float

    def __contains__(self, measured: float) -> bool:
        return self.low <= measured <= self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One summand of a step's time (seconds) or of the peak memory (bytes)."""

    name: str
    quantity: Literal["time", "memory"]
    value: float
    formula: str
    provenance: Provenance
    bound: Bound | None = None
    """What limits it (time terms)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One plan's estimate. A step is an optimizer step (train), a segment batch (score), or a token per sequence (generate)."""

    stack: str
    """Id of the stack profile used."""
    step_s: Range
    tokens_per_s: Range
    """Over all devices."""
    peak_memory_bytes: Range
    """Of the fullest device; on a CPU the process's resident memory."""
    capacity_bytes: int
    """What the plan may use of one device: usable memory less headroom."""
    fits: bool
    """The value (not the high end) of the peak is within the capacity."""
    flops_per_step: float
    """Model FLOPs of all devices (no recomputation), as MFU counts them."""
    mfu: float | None
    energy_j_per_step: Range | None
    """All devices; None where the device's power is unknown."""
    terms: tuple[Term, ...]
    extrapolated: bool
    """The stack's figures come from another device, or from outside the shapes they were measured on."""
    notes: tuple[str, ...] = ()

    @property
    def tight(self) -> bool:
        """It fits by its best figure, and the high end of the peak's range does not."""
        return self.fits and self.peak_memory_bytes.high > self.capacity_bytes

    def part(self, quantity: Literal["time", "memory"]) -> tuple[Term, ...]:
        """The terms of one quantity, largest first."""
        return tuple(sorted((t for t in self.terms if t.quantity == quantity), key=lambda term: -term.value))
