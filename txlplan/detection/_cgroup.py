"""What a container may use of its machine: CPU quota and memory limit of Linux control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED_V1_BYTES = 1 << 60
"""Version 1 writes "no limit" as a number close to 2^63, rounded to pages."""


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that this process may use, the least of its groups; None: no quota. `root` holds proc/ and sys/."""
    quotas = [_cpu_quota_of(directory) for directory in _directories(root, "cpu")]
    return min((quota for quota in quotas if quota), default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process's groups allow, the tightest of them; None: no limit. `root` holds proc/ and sys/."""
    limits = [_memory_limit_of(directory) for directory in _directories(root, "memory")]
    return min((limit for limit in limits if limit), default=None)


def _directories(root: Path, controller: str) -> Iterator[Path]:
    """The group of this process and those above it, in both versions' trees.

    Inside a container the path that /proc names may lie outside what is mounted: the mounted root is read then.
    """
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _upwards(base, path)
        elif controller in controllers.split(","):
            yield from _upwards(base / controllers, path)
            yield from _upwards(base / controller, path)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    parts = PurePosixPath(path.lstrip("/")).parts
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _cpu_quota_of(directory: Path) -> float | None:
    words = _text(directory / "cpu.max").split()
    if not words:
        words = _text(directory / "cpu.cfs_quota_us").split() + _text(directory / "cpu.cfs_period_us").split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _memory_limit_of(directory: Path) -> int | None:
    text = _text(directory / "memory.max").strip() or _text(directory / "memory.limit_in_bytes").strip()
    if not (text.isascii() and text.isdigit()):
        return None
    limit = int(text)
    return limit if 0 < limit < _UNLIMITED_V1_BYTES else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
