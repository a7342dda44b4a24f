"""One operation at one size, as a probe times it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from txlplan.detection._timing import Work
from txlplan.hardware import OpKind, Phase

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One operation at one size."""

    kind: OpKind
    dtype: str
    work: float
    """Of one operation: FLOPs for products, bytes for the rest, averaged over forward and backward."""
    operations: int
    """Dispatched in one call, forward and backward."""
    build: Callable[[], Work]
    shape: tuple[int, int, int] | None = None
    """(m, n, k) of one product."""
    phase: Phase | None = None
    """None: both."""
    is_apart: bool = False
    """Whether after each operation others follow, which are none of it."""

    @property
    def total(self) -> float:
        """FLOPs or bytes of one call."""
        return self.work * self.operations


Rates = Mapping[Phase, float]
"""About how many FLOP/s products of a dtype reach with one thread, by phase."""
VALUE = 0.01
_KEPT_BYTES = 48e6
"""Tensors that one call keeps: beyond the caches of most CPUs, as the activations of a training step are."""
_MAX_KEPT = 4


def filled(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    """A tensor of small numbers: all the same on a CPU. A GPU draws less power on such, and computes faster than it will."""
    if device == "cuda":
        return torch.randn(shape, dtype=dtype, device=device).mul_(VALUE)
    return torch.full(shape, VALUE, dtype=dtype, device=device)


def kept(bytes_each: float) -> int:
    """How many results of that size one call keeps."""
    return int(min(_MAX_KEPT, max(1, _KEPT_BYTES // bytes_each)))
