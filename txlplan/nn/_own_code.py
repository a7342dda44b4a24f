"""C++ of our own, compiled for this CPU where it is first used."""

from __future__ import annotations

import functools
import platform
import zlib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from txlplan.model._tiles import SCORED_QUERIES, SUMMED_ROWS

Name = Literal["attention", "attention_bf16", "dropout", "product_bf16", "token"]
_SHARED: dict[Name, tuple[str, ...]] = {
    "attention": ("attention.h",),
    "attention_bf16": ("bf16.h", "attention.h"),
    "dropout": (),
    "product_bf16": ("bf16.h",),
    "token": (),
}
FLAGS = (
    f"-DMOST_ROWS={SUMMED_ROWS}", f"-DQUERIES={SCORED_QUERIES}", "-ffp-contract=fast", "-fno-unsafe-math-optimizations"
)  # fmt: skip


@functools.cache
def library(name: Name) -> Any:
    """Compiled by the compiler that torch's own uses, and kept where it keeps its code: some seconds the first time on a
    machine. Raises what torch raises where it cannot compile."""
    from torch._inductor.codecache import CppCodeCache

    return CppCodeCache.load(source(name), extra_flags=(*FLAGS, f"-DCPU={_cpu()}"))


def source(name: Name) -> str:
    """All that is compiled as one."""
    files, parts = resources.files("txlplan.nn"), ("vectors.h", *_SHARED[name], f"{name}.cpp")
    return "\n".join(files.joinpath(each).read_text(encoding="utf-8") for each in parts)


@functools.cache
def can_compile(name: Name) -> bool:
    """Whether the code is compiled here, or can be."""
    try:
        library(name)
    except Exception:  # whatever a compiler's absence raises in torch
        return False
    return True


def _cpu() -> int:
    """Another number for a CPU of other instructions, which may keep compiled code in the same directory."""
    said = Path("/proc/cpuinfo")
    lines = said.read_text(encoding="utf-8").splitlines() if said.exists() else []
    features = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return zlib.crc32(" ".join([platform.machine(), platform.processor(), *features[:1]]).encode())
