"""The C library's heap as a pool: what a step frees stays with the process, and the next step asks the kernel for nothing.

glibc returns large blocks to the kernel as soon as they are freed, and has the kernel fill fresh pages with zeros for the next
ones: in every step again, for every tensor of more than 32 MiB. Elsewhere (macOS, musl) nothing is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""<malloc.h>; see mallopt(3)."""
_NEVER = -1
_PAD_BYTES = 64 * 2**20
"""The heap grows by so much at a time."""
_DEFAULTS = {_TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65_536}
"""Of glibc 2.36, see mallopt(3): the thresholds at the ends to which it moves them by itself, which it no longer does once they
were set."""


def keep_freed_memory() -> bool:
    """From now on freed memory stays in the heap, and all memory is of the heap; whether that could be set."""
    return _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _PAD_BYTES})


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """The same for a while, for a process that goes on with something else."""
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            _set(_DEFAULTS)


def _set(values: dict[int, int]) -> bool:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    taken = [library.mallopt(parameter, value) for parameter, value in values.items()]
    return min(taken) == 1
