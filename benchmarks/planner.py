"""How fast plans are costed, and how much of a space need not be: `python benchmarks/planner.py`.

Prints one line a question: a single estimate, a million candidates in one call, the whole space of 1,024 devices (in this
process, and by a command from a cold shell), a comparison of twenty systems at 1 to 64 nodes, and the start of two light
commands beside that of the libraries they need.
`--million` and `--compare` take several seconds each and are left out without them. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from txlplan import compare
from txlplan.cost import Plans, estimate
from txlplan.hardware import systems
from txlplan.model import models
from txlplan.plan_file import Plan
from txlplan.planner import Candidate, plan
from txlplan.workload import Workload

MODEL = "nvidia-wt103-large"


def timed(question: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time in seconds, and the answer."""
    start = time.perf_counter()
    answer = question()
    return time.perf_counter() - start, answer


def single(target: Candidate, workload: Workload) -> dict[str, float]:
    """One estimate with all its terms, its op stream written down before: the least of fifty."""
    one = [Plan(micro_batch=4, accumulation=4, precision="fp16", data_parallel=8)]

    def ask() -> object:
        return estimate(workload, target.cluster, target.stack, one)[0]

    ask()
    return {"estimate_ms": min(timed(ask)[0] for _ in range(50)) * 1e3}


def million(target: Candidate, workload: Workload) -> dict[str, float]:
    """A million candidates over batches, accumulation, replicas, sharding and checkpointing, in one call."""
    count = np.arange(1_000_000)
    plans = Plans.from_columns(
        count.size,
        micro_batch=1 + count % 32,
        accumulation=1 + count // 32 % 25,
        data_parallel=2 ** (count // 800 % 11),
        zero_stage=count // 8_800 % 4,
        activation_checkpointing=count // 35_200 % 4,
        precision=2 + count // 140_800 % 2,
    )
    seconds, _ = timed(lambda: estimate(workload, target.cluster, target.stack, plans))
    return {"million_s": seconds, "million_per_s": count.size / seconds}


def whole_space(target: Candidate, workload: Workload) -> dict[str, float]:
    """The best plan of every one that there is for 1,024 devices."""
    seconds, choice = timed(lambda: plan(workload, target.cluster, target.stack, simplify=False))
    return {
        "space_s": seconds,
        "space_plans": choice.n_considered,
        "space_costed": choice.n_costed,
        "space_plans_per_s": choice.n_considered / seconds,
    }


def from_a_shell() -> dict[str, float]:
    """The same question by a command, from its start to its end: the middle of three, after one that writes bytecode down."""
    asked = ["plan", "--model", MODEL, "--system", "dgx-a100-40gb", "--nodes", "128", "--json"]
    _, *seconds = (timed(partial(_run, ["-m", "txlplan", *asked]))[0] for _ in range(4))
    return {"shell_s": sorted(seconds)[1]}


def _run(arguments: list[str]) -> None:
    """With modules compiled, as pip leaves them, whatever this shell's setting is."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)


def twenty_systems() -> dict[str, float]:
    """Which of twenty systems, each in 1, 2, 4 … 64 nodes."""
    names = [system.id for system in systems.all() if system.inter_node is not None][:20]
    on = [f"1..64x{name}" for name in names]
    return {"compare_s": timed(lambda: compare(model=MODEL, tokens=1.8e9, on=on))[0], "compare_systems": len(names)}


def light_commands() -> dict[str, float]:
    """Wall time of `txlplan --help` and `hardware list` over that of importing typer and pydantic alone: the least of five."""
    starts = {
        "imports_s": ["-c", "import typer, pydantic"],
        "help_s": ["-m", "txlplan", "--help"],
        "hardware_list_s": ["-m", "txlplan", "hardware", "list"],
    }

    found = [{name: timed(partial(_run, arguments))[0] for name, arguments in starts.items()} for _ in range(5)]
    least = {name: min(each[name] for each in found) for name in starts}
    return {f"{name[:-2]}_ratio": least[name] / least["imports_s"] for name in starts if name != "imports_s"}


def peak_bytes() -> int:
    """Of this process, or the largest of those that it started: commands, and workers that share a comparison."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    """Ask, print, and end with a JSON document."""
    target, workload = Candidate.of("dgx-a100-40gb", n_nodes=128), Workload(model=models.get(MODEL))
    found = single(target, workload) | whole_space(target, workload) | from_a_shell() | light_commands()
    if "--million" in sys.argv:
        found |= million(target, workload)
    if "--compare" in sys.argv:
        found |= twenty_systems()
    found["peak_memory_mib"] = peak_bytes() / 2**20
    for name, value in found.items():
        print(f"{name:18} {value:,.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
