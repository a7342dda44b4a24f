"""Code of our own as other CPUs have it compiled, such as one without AVX-512."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from txlplan.nn._own_code import FLAGS, Name, source

_COMPILER = shutil.which(os.environ.get("CXX", "c++"))
_CPUINFO = Path("/proc/cpuinfo")
_HAS_AVX2 = _CPUINFO.exists() and {"avx2", "fma"} <= set(_CPUINFO.read_text().split())
needs_narrower_registers = pytest.mark.skipif(
    not (_HAS_AVX2 and _COMPILER), reason="another machine's registers are those of the other tests"
)


def built_for_narrower_registers(name: Name, directory: Path) -> ctypes.CDLL:
    return built(name, directory, "-mavx2", "-mfma", "-mno-avx512f")


def built(name: Name, directory: Path, *flags: str) -> ctypes.CDLL:
    written, library = directory / f"{name}.cpp", directory / f"{name}.so"
    written.write_text(source(name), encoding="utf-8")
    general = ["-std=c++20", "-O2", "-fopenmp", "-fPIC", "-shared"]
    subprocess.run([str(_COMPILER), *general, *flags, *FLAGS, str(written), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
