"""C++ of our own, compiled for this CPU where it is first used."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch

from txlplan import resources
from txlplan.model._tiles import SCORED_QUERIES, SUMMED_ROWS
from txlplan.nn._instructions import may_use_tiles
from txlplan.nn._kept_code import keep_code, kept_code

Name = Literal["attention", "attention_bf16", "dropout", "norm", "product_bf16", "token"]
_SHARED: dict[Name, tuple[str, ...]] = {
    "attention": ("attention.h",),
    "attention_bf16": ("bf16.h", "attention.h"),
    "dropout": (),
    "norm": (),
    "product_bf16": ("bf16.h",),
    "token": (),
}
FLAGS = (
    f"-DMOST_ROWS={SUMMED_ROWS}", f"-DQUERIES={SCORED_QUERIES}", "-ffp-contract=fast", "-fno-unsafe-math-optimizations"
)  # fmt: skip


@functools.cache
def library(name: Name) -> ctypes.CDLL:
    """Compiled by the compiler that torch's own uses, some ten seconds the first time on a machine, and kept for the next.

    Raises what torch raises where it cannot compile.
    """
    made_from = _made_from(source(name), *_flags(name))
    return kept_code(name, made_from) or _compiled(name, made_from)


def _compiled(name: Name, made_from: str) -> ctypes.CDLL:
    """Torch keeps it too, and tells by its flags what it was compiled for."""
    from torch._inductor.codecache import CppCodeCache

    compiled: ctypes.CDLL = CppCodeCache.load(source(name), extra_flags=(*_flags(name), f"-DMADE_FROM=0x{made_from}"))
    keep_code(name, made_from, Path(compiled._name))
    return compiled


def _flags(name: Name) -> tuple[str, ...]:
    """Code of bf16 uses tiles where it finds them, unless it is told not to."""
    return (*FLAGS, "-DWITHOUT_TILES") if "bf16.h" in _SHARED[name] and not may_use_tiles() else FLAGS


def source(name: Name) -> str:
    """All that is compiled as one."""
    directory, parts = files("txlplan.nn"), ("vectors.h", *_SHARED[name], f"{name}.cpp")
    return "\n".join(directory.joinpath(each).read_text(encoding="utf-8") for each in parts)


@functools.cache
def can_compile(name: Name) -> bool:
    """Whether the code is compiled here, or can be."""
    try:
        library(name)
    except Exception:  # whatever a compiler's absence raises in torch
        return False
    return True


def _made_from(code: str, *flags: str) -> str:
    """Another number for other code, flags, compiler, torch, or CPU, which may all keep compiled code in one directory; and for
    a CPU that torch is told to compile for."""
    told = (os.environ.get(name, "") for name in ("TORCHINDUCTOR_CPP_MARCH", "ATEN_CPU_CAPABILITY"))
    parts = [code, *flags, _compiler(), torch.__version__, _cpu(), *told]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compiler() -> str:
    """Changes when it is replaced by a newer one."""
    found = resources.cpp_compiler()
    if found is None:
        return "none"
    path = Path(found).resolve()
    said = path.stat()
    return f"{path} {said.st_size} {said.st_mtime_ns}"


def _cpu() -> str:
    """What tells its instructions from those of others."""
    said = Path("/proc/cpuinfo")
    lines = said.read_text(encoding="utf-8").splitlines() if said.exists() else []
    features = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return " ".join([platform.machine(), platform.processor(), *features[:1]])
