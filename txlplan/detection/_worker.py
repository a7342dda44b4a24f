"""What real workers take on this device: memory and step time of some that train, or score with, the same small model.

Of two that train, the one with a single sequence holds next to no activations: its memory is that of Python, torch, its
libraries and what a checkpoint needs. The one with many sets against each other what the cost model adds up from single
operations and what a whole training step takes: freed memory that the heap does not give back, and how far the sum is off. A
process that only reads loads less of torch and frees other sizes, so two more score.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from txlplan.choices import Precision, Task
from txlplan.data import prepare
from txlplan.engine import events
from txlplan.errors import TxlplanError
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, write_plan_file
from txlplan.workload import Workload

_STEPS: dict[Task, int] = {"train": 11, "score": 6}
"""The heap stops growing after about six."""
_WARM_UP = 5
_MANY = {"cpu": 16, "cuda": 256}
"""Sequences: about 80 MiB that come and go, as small models on laptops have; on a GPU far more than its allocator's blocks."""
_TEXT = "".join(f"{number} bottles of beer on the wall, {number * number} in all.\n" for number in range(3_000))
SMALL = ModelConfig(
    id="probe-small", n_layer=4, d_model=256, n_head=4, d_head=64, d_inner=1024, vocab_size=256, tgt_len=64, mem_len=64
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRun:
    """What a worker took."""

    workload: Workload
    plan: Plan
    peak_memory_bytes: int
    step_s: float
    """Of training alone; median after warm-up, as the operations are timed."""
    beside_s: float
    """The rest of the process's time: to start, load torch, set up and end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The runs, those that did not fail; a note where they did."""

    single: WorkerRun | None = None
    """One sequence."""
    many: WorkerRun | None = None
    reading_single: WorkerRun | None = None
    """The same while scoring."""
    reading_many: WorkerRun | None = None
    notes: tuple[str, ...] = ()


def run_workers(where: str, threads: int | None, precision: Precision, budget_s: float) -> Workers:
    """Train and score for a few steps in processes of their own, within `budget_s` in all.

    First trains the one whose time counts. Of the others only the memory does, and most of their time is their start: on a CPU
    they run at once.
    """
    end_s = time.perf_counter() + budget_s
    single, many = (Plan(micro_batch=batch, precision=precision, threads=threads) for batch in (1, _MANY[where]))
    others: tuple[tuple[Task, Plan], ...] = (("train", single), ("score", single), ("score", many))
    at_once = len(others) if where == "cpu" else 1

    def attempt(directory: Path, task: Task, plan: Plan, *, alone: bool) -> WorkerRun | str:
        """A run, or why there is none."""
        try:
            return _run(directory, where, plan, task, end_s - time.perf_counter(), alone=alone)
        except subprocess.TimeoutExpired:
            return f"workers took longer than {budget_s:.0f} s"
        except (OSError, TxlplanError) as error:
            return str(error)

    try:
        with tempfile.TemporaryDirectory(prefix="txlplan-probe-") as name:
            directory = Path(name)
            (directory / "text.txt").write_text(_TEXT, encoding="utf-8")
            prepare([directory / "text.txt"], directory / "data", processes=1)
            whole = attempt(directory, "train", many, alone=True)
            if isinstance(whole, str):
                return Workers(notes=(f"whole train steps were not measured: {whole}",))
            with ThreadPoolExecutor(at_once) as pool:
                tried = list(pool.map(lambda job: attempt(directory, *job, alone=at_once == 1), others))
    except OSError as error:
        return Workers(notes=(f"whole train steps were not measured: {error}",))
    trained, read, read_many = (None if isinstance(each, str) else each for each in tried)
    untold = dict.fromkeys(f"memory of workers was not measured: {each}" for each in tried if isinstance(each, str))
    return Workers(many=whole, single=trained, reading_single=read, reading_many=read_many, notes=tuple(untold))


def _run(directory: Path, where: str, plan: Plan, task: Task, timeout_s: float, *, alone: bool = True) -> WorkerRun:
    """Scoring takes the weights that training on many sequences left. Beside others (not `alone`) threads that wait give their
    cores up. Raises TxlplanError with the worker's last words."""
    workload = Workload(model=SMALL, task=task)
    place, trained = (directory / f"{name}-{batch}" for name, batch in ((task, plan.micro_batch), ("train", _MANY[where])))
    settings = RunSettings(directory=str(place), device=where, checkpoint=None if task == "train" else str(trained))
    file = PlanFile(
        system="probe",
        stack="probe",
        workload=workload,
        plan=plan,
        data=DataSettings(directory=str(directory / "data"), split="train"),
        run=settings,
    )
    write_plan_file(place / "plan.toml", file)
    command = [sys.executable, "-m", "txlplan.engine.worker", str(place / "plan.toml"), "--steps", str(_STEPS[task])]
    environment = None if alone else {**os.environ, "OMP_WAIT_POLICY": "passive"}
    start_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    took_s = time.perf_counter() - start_s
    told, _ = events.read(place / events.FILE_NAME)
    finished = next((each for each in told if isinstance(each, events.Finished)), None)
    if finished is None or finished.outcome != "ok" or finished.peak_memory_bytes is None:
        words = finished.message if finished else (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TxlplanError(f"the worker ended with {done.returncode}: {words}")
    steps = [each.step_s for each in told if isinstance(each, events.Step)]
    return WorkerRun(
        workload=workload,
        plan=plan,
        peak_memory_bytes=finished.peak_memory_bytes,
        step_s=statistics.median(steps[min(_WARM_UP, _STEPS[task] - 1) :]),
        beside_s=took_s - sum(steps),
    )
