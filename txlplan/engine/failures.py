"""What an exception that ends a worker means to its user."""

from __future__ import annotations

from typing import Literal

from txlplan.errors import TxlplanError

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_LOST_PROCESS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


def outcome(error: BaseException) -> Literal["oom", "failed"]:
    """Python's and CUDA's out-of-memory errors have types; the CPU allocator raises a RuntimeError that names it."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "oom"
    return "oom" if isinstance(error, RuntimeError) and _names(error, _OUT_OF_MEMORY) else "failed"


def message(error: BaseException) -> str:
    """One line: our own errors say what happened; of others the type and the first line."""
    if isinstance(error, TxlplanError):
        return error.message
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, RuntimeError) and _names(error, _LOST_PROCESS):
        return f"another process of this run is gone; the log of that process says why ({first_line})"
    return f"{type(error).__name__}: {first_line}"


def _names(error: BaseException, marks: tuple[str, ...]) -> bool:
    return any(mark in str(error) for mark in marks)
