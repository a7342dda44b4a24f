"""Operands that no cache holds: what an operation of a step reads, other than what was computed just before, was last touched
a layer, or a whole step, ago.

Timed on operands in a core's cache or in the last one, products of a layer (384 × 384 × 384 to 1024 × 768 × 384) take two
thirds to four fifths of what they do on operands from 300 MB of them in turn (2 cores of an Intel Xeon with AMX, fp32 and bf16,
torch 2.13, 2026-11-26). To fill so much for each of them would take longer than they do, so all read one memory, each from
where the last one ended.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Operands = TypeVar("Operands")

_BYTES = 256 << 20
_BYTE = 0x3C
"""Of all that is read: 0.0115 in fp32 and bf16, 1.06 in fp16."""
_ALIGNMENT = 64
_MOST_TURNS = 256
"""More than one sample computes."""
_RESULTS_BYTES = 64e6
"""Of results kept at a time: beyond a core's cache, and what remains of the last one beside what is read."""


class _Memory:
    """Bytes, and how many of them were taken since it began."""

    def __init__(self) -> None:
        self._bytes: Tensor | None = None
        self._taken = 0

    def take(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """The next so many elements, only to be read. From the beginning again where too few are left."""
        if self._bytes is None:
            self._bytes = torch.full((_BYTES,), _BYTE, dtype=torch.uint8)
        size = math.prod(shape) * dtype.itemsize
        start = self._taken if self._taken + size <= _BYTES else 0
        self._taken = start + -(-size // _ALIGNMENT) * _ALIGNMENT
        return self._bytes[start : start + size].view(dtype).view(shape)

    def give_back(self) -> None:
        """Hold nothing until more is taken."""
        self._bytes, self._taken = None, 0


_memory = _Memory()


@contextlib.contextmanager
def cold_memory_given_back() -> Iterator[None]:
    """What was taken meanwhile is held no longer than by those that took it."""
    try:
        yield
    finally:
        _memory.give_back()


def cold(*shape: int, dtype: torch.dtype) -> Tensor:
    """A tensor of small numbers, only to be read, that lies where nothing was read for long."""
    return _memory.take(*shape, dtype=dtype)


def in_turn(new: Callable[[], Operands], bytes_each: float) -> Iterator[Operands]:
    """Endless operands of one operation after another, `bytes_each` of them cold."""
    return itertools.cycle([new() for _ in range(int(min(_MOST_TURNS, max(1, _BYTES // bytes_each))))])


def kept_results(bytes_each: float) -> deque[Tensor]:
    """Keeps what is appended until much more is there, as activations and gradients are kept: so that new results take memory
    that was given back long ago."""
    return deque(maxlen=int(max(1, _RESULTS_BYTES // bytes_each)))
