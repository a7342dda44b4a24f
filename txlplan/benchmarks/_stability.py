"""Is the machine the same all along? A fixed matrix product between repeats, and how busy others keep the CPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from txlplan import files
from txlplan.config import from_plain, to_plain
from txlplan.config._schema import STRICT

FILE_NAME = "reference.jsonl"
_SIZE = 768
_CALLS = 31
_BUSY_OVER_S = 0.3
DRIFT_BOUND = 0.10
BUSY_BOUND = 0.10


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The state of the machine before one repeat, while nothing of ours runs."""

    __pydantic_config__ = STRICT

    product_s: float
    """Median time of a float32 product of two 768 × 768 matrices by NumPy, all threads."""
    busy: float
    """Share of all cores that others use."""
    load_1min: float | None
    """The operating system's load average; None where it keeps none."""


def measure() -> Reference:
    """Take the reference: about half a second."""
    import numpy as np
    import psutil

    busy = psutil.cpu_percent(interval=_BUSY_OVER_S) / 100
    left = np.random.default_rng(0).random((_SIZE, _SIZE), np.float32)
    result = np.zeros_like(left)  # (memory of its own each time would cost more in a small process than in a large one)
    times = []
    for _ in range(_CALLS + 1):
        start_s = perf_counter()
        np.matmul(left, left, out=result)
        times.append(perf_counter() - start_s)
    load = psutil.getloadavg()[0] if hasattr(psutil, "getloadavg") else None
    return Reference(product_s=median(times[1:]), busy=busy, load_1min=load)


def keep(directory: Path, reference: Reference) -> None:
    """Append a reference to the benchmark's file; what a killed process left of a line is cut off."""
    path = directory / FILE_NAME
    files.cut_unfinished_line(path)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(to_plain(reference)) + "\n")


def kept(directory: Path) -> list[Reference]:
    """The references so far; an unfinished last line (the process was killed) is left out."""
    path = directory / FILE_NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [from_plain(Reference, json.loads(line), str(path)) for line in lines if line.endswith("\n")]


def notes(references: Sequence[Reference]) -> tuple[str, ...]:
    """What a reader must know of the machine: nothing where it was steady and idle."""
    if not references:
        return ()
    times = [reference.product_s for reference in references]
    said = []
    drift = max(times) / min(times) - 1
    if drift > DRIFT_BOUND:
        said.append(
            f"unstable machine: a fixed matrix product took between {min(times):.4f} s and {max(times):.4f} s ({drift:.0%})"
        )
    busy = median(reference.busy for reference in references)
    if busy > BUSY_BOUND:
        said.append(f"busy machine: other processes used {busy:.0%} of its cores (median before repeats)")
    return tuple(said)
