"""The C library's heap as a pool: what a step frees stays with the process, and the next step asks the kernel for nothing.

glibc returns large blocks to the kernel as soon as they are freed, and has the kernel fill fresh pages with zeros for the next
ones: in every step again, for every tensor of more than 32 MiB. Elsewhere (macOS, musl) nothing is changed.

The heap is of huge pages where the kernel gives them to who asks (transparent huge pages, `madvise`): many tensors of a few MiB
need far fewer translations of addresses then.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""<malloc.h>; see mallopt(3)."""
_NEVER = -1
_PAD_BYTES = 64 * 2**20
"""The heap grows by so much at a time."""
_SHARE_ASKED_FOR = 0.75
"""Of the machine's memory, that huge pages are asked for: a kernel refuses what is obviously too much."""
_DEFAULTS = {_TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65_536}
"""Of glibc 2.36, see mallopt(3): the thresholds at the ends to which it moves them by itself, which it no longer does once they
were set."""


def keep_freed_memory() -> bool:
    """From now on freed memory stays in the heap, and all memory is of the heap, from now on in huge pages where there are any;
    whether that could be set."""
    kept = _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _PAD_BYTES})
    if kept:
        _ask_for_huge_pages(int(_SHARE_ASKED_FOR * os.sysconf("SC_PHYS_PAGES")) * mmap.PAGESIZE)
    return kept


def _ask_for_huge_pages(size: int) -> None:
    """For the next so many bytes of the heap: it grows by them, and keeps what it then has freed. None of it is touched.

    Nothing where addresses of memory count as memory.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE") or _counts_addresses():
        return
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = library.malloc(size)
    if block is None:
        return
    first = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    library.madvise(first, block + size - first, mmap.MADV_HUGEPAGE)
    library.free(block)


def _counts_addresses() -> bool:
    """Whether the process may have so many (ulimit -v, -d), or the kernel lets no more be asked for than there is
    (vm.overcommit_memory = 2)."""
    if any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)):
        return True
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == "2"
    except OSError:
        return False


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """The same for a while, for a process that goes on with something else: what is free then is the kernel's again."""
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            _set(_DEFAULTS)
            ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> bool:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    taken = [library.mallopt(parameter, value) for parameter, value in values.items()]
    return min(taken) == 1
