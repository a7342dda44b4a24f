"""What real workers take on this CPU: the memory of one that holds almost nothing, and memory and time of a small one.

The first gives the memory that Python, torch and its libraries take. The second sets against each other what the cost model
adds up from single operations and what a whole training step takes: freed memory that the heap does not give back, and how
far the sum is off.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from txlplan.data import prepare
from txlplan.engine import events
from txlplan.errors import TxlplanError
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, write_plan_file
from txlplan.plan_file._plan import Precision
from txlplan.workload import Workload

_TIMEOUT_S = 40
_STEPS = 10
"""The heap stops growing after about six."""
_WARM_UP = 3
_TEXT = "".join(f"{number} bottles of beer on the wall, {number * number} in all.\n" for number in range(3_000))
EMPTY = ModelConfig(
    id="probe-empty", n_layer=1, d_model=16, n_head=2, d_head=8, d_inner=16, vocab_size=256, tgt_len=8, mem_len=8
)
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
    """Lower quartile after warm-up, as the operations are timed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The runs that succeeded; None and a note for one that did not."""

    empty: WorkerRun | None = None
    small: WorkerRun | None = None
    notes: tuple[str, ...] = ()


def run_workers(threads: int, precision: Precision) -> Workers:
    """Train both models for a few steps in processes of their own."""
    try:
        with tempfile.TemporaryDirectory(prefix="txlplan-probe-") as name:
            directory = Path(name)
            (directory / "text.txt").write_text(_TEXT, encoding="utf-8")
            prepare([directory / "text.txt"], directory / "data", processes=1)
            empty = _run(directory, EMPTY, Plan(micro_batch=1, precision=precision, threads=threads))
            small = _run(directory, SMALL, Plan(micro_batch=16, precision=precision, threads=threads))
            return Workers(empty=empty, small=small)
    except (OSError, subprocess.SubprocessError, TxlplanError) as error:
        return Workers(notes=(f"the memory of a worker process was not measured: {error}",))


def _run(directory: Path, model: ModelConfig, plan: Plan) -> WorkerRun:
    """Raises TxlplanError with the worker's last words when it fails."""
    workload = Workload(model=model)
    place = directory / model.id
    settings = RunSettings(directory=str(place))
    file = PlanFile(
        system="probe",
        stack="probe",
        workload=workload,
        plan=plan,
        data=DataSettings(directory=str(directory / "data")),
        run=settings,
    )
    write_plan_file(place / "plan.toml", file)
    command = [sys.executable, "-m", "txlplan.engine.worker", str(place / "plan.toml"), "--steps", str(_STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    told, _ = events.read(place / events.FILE_NAME)
    finished = next((each for each in told if isinstance(each, events.Finished)), None)
    if finished is None or finished.outcome != "ok" or finished.peak_memory_bytes is None:
        words = finished.message if finished else (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TxlplanError(f"the worker ended with {done.returncode}: {words}")
    steps = [each.step_s for each in told if isinstance(each, events.Step)][_WARM_UP:]
    quick = statistics.quantiles(steps, n=4, method="inclusive")[0]
    return WorkerRun(workload=workload, plan=plan, peak_memory_bytes=finished.peak_memory_bytes, step_s=quick)
