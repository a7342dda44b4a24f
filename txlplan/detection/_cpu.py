"""This machine's CPU as one device: what the operating system says of it, cut down to what a container may use."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from txlplan.detection._cgroup import cpu_quota, memory_limit_bytes

_KIB = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """What is known of the CPU. None: unknown."""

    name: str
    vendor: str
    features: frozenset[str]
    """Flags of /proc/cpuinfo."""
    logical_cpus: int
    """Of the machine."""
    usable_cpus: int
    """What affinity and container quota leave of them: how many threads make sense."""
    cores: int
    """Physical cores among the usable CPUs."""
    clock_hz: float | None
    cache_bytes: int | None
    memory_bytes: int
    """What this process may use: the machine's, or the container's limit."""
    installed_memory_bytes: int
    notes: tuple[str, ...] = ()


def read_cpu(root: Path = Path("/")) -> Cpu:
    """Read the CPU from psutil, /proc/cpuinfo and the control groups under `root`; what cannot be read becomes a note."""
    import psutil

    notes: list[str] = []
    info = _cpuinfo(root)
    if not info:
        notes.append("/proc/cpuinfo cannot be read: the CPU's features are unknown")
    logical = psutil.cpu_count(logical=True) or os.cpu_count() or 1
    usable = _usable_cpus(logical, cpu_quota(root), notes)
    physical = psutil.cpu_count(logical=False) or logical
    threads_per_core = max(1, round(logical / physical))
    installed = int(psutil.virtual_memory().total)
    limit = memory_limit_bytes(root)
    if limit is not None and limit < installed:
        notes.append(f"memory limited to {limit / 2**30:.3g} GiB of {installed / 2**30:.3g} GiB by the container")
    return Cpu(
        name=info.get("model name") or platform.processor() or platform.machine(),
        vendor=info.get("vendor_id", "unknown"),
        features=frozenset((info.get("flags") or info.get("Features") or "").split()),
        logical_cpus=logical,
        usable_cpus=usable,
        cores=max(1, min(physical, math.ceil(usable / threads_per_core))),
        clock_hz=_clock_hz(info),
        cache_bytes=_cache_bytes(root),
        memory_bytes=min(installed, limit or installed),
        installed_memory_bytes=installed,
        notes=tuple(notes),
    )


def usable_cpus() -> int:
    """How many CPUs this process can keep busy: affinity and container quota respected, at least one."""
    return _usable_cpus(os.cpu_count() or 1, cpu_quota(), [])


def _usable_cpus(logical: int, quota: float | None, notes: list[str]) -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    if allowed < logical:
        notes.append(f"{allowed} of {logical} CPUs allowed by affinity")
    if quota is not None and quota < allowed:
        notes.append(f"CPU time limited to {quota:g} of {allowed} CPUs by the container")
        allowed = max(1, math.floor(quota))
    return max(1, allowed)


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's keys of /proc/cpuinfo."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value}


def _clock_hz(info: dict[str, str]) -> float | None:
    """The highest clock that psutil knows, else the one /proc/cpuinfo shows now."""
    import psutil

    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        frequency = None
    mhz = (frequency.max or frequency.current) if frequency else float(info.get("cpu MHz") or 0)
    return mhz * 1e6 if mhz else None


def _cache_bytes(root: Path) -> int | None:
    """Size of the last-level cache that the first CPU sees."""
    sizes = []
    for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * _KIB)
    return max(sizes, default=None)
