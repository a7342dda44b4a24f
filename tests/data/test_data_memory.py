"""Text is streamed: the peak of resident memory does not grow with it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

PEAK = """
import re, sys
from pathlib import Path
from txlplan.data import Settings, prepare
prepare([sys.argv[2]], Path(sys.argv[3]), settings=Settings(vocabulary=sys.argv[1]), processes=1)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
MIB = 1 << 20
LINES = "".join(f"The {word} is one of many words, naïve or not.\n" for word in range(2000)).encode()


def peak_bytes(kind: str, path: Path) -> int:
    command = [sys.executable, "-c", PEAK, kind, str(path), str(path.with_suffix(".out"))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024


def written(path: Path, size: int, *, compress: bool = False, newlines: bool = True) -> Path:
    block = LINES if newlines else LINES.replace(b"\n", b" ")
    data = block * (size // len(block))
    path.write_bytes(gzip.compress(data, 1) if compress else data)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is read from /proc")
@pytest.mark.parametrize(("kind", "compress", "newlines"), [("bytes", False, True), ("characters", True, False)])
def test_peak_memory_does_not_grow_with_the_text(kind: str, compress: bool, newlines: bool, tmp_path: Path) -> None:
    small = peak_bytes(kind, written(tmp_path / "small", 20 * MIB, compress=compress, newlines=newlines))
    large = peak_bytes(kind, written(tmp_path / "large", 60 * MIB, compress=compress, newlines=newlines))
    assert large < small + 8 * MIB
