"""How a training step's time and memory grow with length, memory, width and batch: the fast path and our reference path.

    python benchmarks/scaling.py                    about two minutes; prints a line a shape, then one JSON document

From one small shape each dimension is doubled twice by itself. Both paths take their steps in turn, A B A B, each in a process
of its own; shown are the medians of their steps, and how many times faster the fast path is, with its 90 % interval.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from _contenders import stepping
from _pairs import LEAST_PAIRS, ratio
from _side import NAME, Side

from txlplan.model import ModelConfig

BASE = ModelConfig(id="base", n_layer=4, d_model=128, n_head=2, d_head=64, d_inner=512, vocab_size=256, tgt_len=64, mem_len=64)
BATCH = 4
FACTORS = (1, 2, 4)
Row = dict[str, Any]


def shapes() -> dict[str, tuple[ModelConfig, int]]:
    """Model and batch by name: the base, and each dimension times 2 and 4."""
    found = {"base": (BASE, BATCH)}
    for factor in FACTORS[1:]:
        wider = replace(BASE, d_model=128 * factor, n_head=2 * factor, d_inner=512 * factor)
        found |= {
            f"length x {factor}": (replace(BASE, tgt_len=64 * factor), BATCH),
            f"memory x {factor}": (replace(BASE, mem_len=64 * factor), BATCH),
            f"width x {factor}": (wider, BATCH),
            f"batch x {factor}": (BASE, BATCH * factor),
        }
    return found


def main() -> None:
    """Measure every shape, or be one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shape", choices=sorted(shapes()), help="this one alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if NAME in os.environ:
        return _work(options)
    rows = [_measured(options, name) for name in shapes() if options.shape in (None, name)]
    machine = {"processor": platform.processor(), "threads": options.threads, "torch": torch.__version__}
    found = {"machine": machine, "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    return None


def _measured(options: argparse.Namespace, shape: str) -> Row:
    command = [sys.executable, __file__, "--shape", shape, "--threads", str(options.threads)]
    with Side("reference", command, side="reference") as reference, Side("fast", command, side="fast") as fast:
        found = ratio(reference.step, fast.step, pairs=options.pairs)
        peaks = {"reference peak MiB": reference.peak_bytes() >> 20, "fast peak MiB": fast.peak_bytes() >> 20}
    row = {"what": shape, **asdict(found), **peaks}
    shown = (f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    print("  ".join(shown), flush=True)
    return row


def _work(options: argparse.Namespace) -> None:
    """The other end of a Side."""
    from txlplan.engine import footprint

    torch.manual_seed(1)
    step = stepping(os.environ[NAME], *shapes()[options.shape], bf16=False, device=torch.device("cpu"))
    for line in sys.stdin:
        print(step() if line.strip() == "step" else footprint.peak_bytes(torch.device("cpu")), flush=True)


if __name__ == "__main__":
    main()
