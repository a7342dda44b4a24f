"""The software and code state that a run happens in. Nothing here fails: what cannot be found out is None."""

from __future__ import annotations

import platform
import socket
import subprocess
from importlib import metadata

from txlplan.records._record import Environment

_GIT_TIMEOUT_S = 5.0


def environment() -> Environment:
    """Python, torch (by its metadata: torch is not imported), system, driver, and the current directory's git state."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain") if commit else None
    return Environment(
        python=platform.python_version(),
        torch=_version("torch"),
        operating_system=_operating_system(),
        hostname=socket.gethostname(),
        driver=_driver(),
        git_commit=commit,
        git_dirty=None if changes is None else bool(changes),
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _operating_system() -> str:
    """Distribution where there is one, then kernel and machine: `Debian GNU/Linux 12 (bookworm), Linux 6.1.0 x86_64`."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _driver() -> str | None:
    """Version of NVIDIA's driver, or None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # (no NVIDIA driver, a broken one, or no pynvml: all mean unknown)
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _git(*arguments: str) -> str | None:
    """What git prints for the current directory, or None where there is no git, no repository or no answer in time."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
