"""How much memory this process holds, as the operating system or the CUDA driver counts it.

What a worker process holds on a CPU, beside the interpreter with torch loaded: parameters, gradients (from the first
backward on), optimizer states (from the end of the first step on), recurrent memory per accumulation chunk (the old and
the new one of the chunk at work), saved activations and transients of one micro-batch. Token files are memory-mapped and
count as they are touched. A checkpoint adds at most two buckets of `checkpoint.BUCKET_BYTES` (or two of its largest tensor).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from txlplan.engine import driver

_STATUS = Path("/proc/self/status")


def in_use_bytes(device: torch.device) -> int | None:
    """Memory in use now: resident set on a CPU, allocated tensors on CUDA."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int | None:
    """Most memory ever held: VmHWM on a CPU; on CUDA what the allocator reserved at most, plus the context.

    Where the driver does not tell what is this process's, all that the allocator does not hold counts as its context.
    """
    if device.type != "cuda":
        return _status_bytes("VmHWM") or _peak_by_resource()
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    held_bytes = driver.process_bytes(device) or total_bytes - free_bytes
    return torch.cuda.max_memory_reserved(device) + max(0, held_bytes - torch.cuda.memory_reserved(device))


def allocator_peak_bytes(device: torch.device) -> int | None:
    """Peak of live tensors that the caching allocator saw; None on a CPU, which has no such allocator."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _status_bytes(field: str) -> int | None:
    """A `kB` line of /proc/self/status (Linux), or None elsewhere."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _peak_by_resource() -> int:
    """Where there is no /proc: getrusage, in bytes on macOS and KiB elsewhere."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
