"""Code of our own as a CPU without AVX-512 has it compiled."""

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
    written, built = directory / f"{name}.cpp", directory / f"{name}.so"
    written.write_text(source(name), encoding="utf-8")
    flags = ["-std=c++20", "-O2", "-mavx2", "-mfma", "-mno-avx512f", "-fopenmp", "-fPIC", "-shared"]
    subprocess.run([str(_COMPILER), *flags, *FLAGS, str(written), "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))
