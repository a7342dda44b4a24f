"""The program that every runner starts: `python -m txlplan.engine.worker RUN_DIR/plan.toml [--steps N] [--resume]`.

With `--trials PLANS.json --seconds S` it tries these plans instead, in place of the plan file's own (`engine.trials`).

It writes events.jsonl and checkpoints/ into the plan's run directory, and exits with 0 (ok, stopped), 2 (the plan file cannot
be read or executed; no event says so) or 4 (out of memory, failed).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal, NoReturn

import psutil

from txlplan.config import from_plain
from txlplan.engine import failures
from txlplan.engine.compiler_cache import keep_compiled_code
from txlplan.engine.event_log import EventLog
from txlplan.engine.events import Finished
from txlplan.engine.heap import keep_freed_memory
from txlplan.engine.stopping import StopRequest
from txlplan.engine.support import unsupported
from txlplan.engine.world import World
from txlplan.errors import InputError, TxlplanError
from txlplan.plan_file import Plan, PlanFile, read_plan_file

if TYPE_CHECKING:
    from txlplan.engine.backend import Backend
    from txlplan.engine.tasks import Job

_EXIT_CODES = {"ok": 0, "stopped": 0, "oom": 4, "failed": 4}


def main(arguments: Sequence[str] | None = None, *, age_s: float = 0.0, alone: bool = False) -> int:
    """Do what the plan file says and return the exit code.

    `age_s`: for how long this program has been starting. `alone`: nothing else runs in this process, whose threads all count.
    """
    began_s = perf_counter() - age_s
    options = _options(arguments)
    stop = StopRequest()
    try:
        plan_file = read_plan_file(options.plan)
        world = World.from_environment()
        _require_supported(plan_file, options.plan)
        log = EventLog(Path(plan_file.run.directory), world)
    except TxlplanError as error:
        _say(error)
        return error.exit_code
    try:
        keep_compiled_code()
        if alone:
            _flush_tiny_numbers()
        finished = _run(plan_file, world, log, stop, options, began_s)
        log.emit(finished)
    except BaseException as error:
        finished = _failure(plan_file, error)
        log.fail(finished)
        _say(error)
    return _EXIT_CODES[finished.outcome]


def _flush_tiny_numbers() -> None:
    """Before torch starts threads, and after a bad plan has been refused: torch is loaded for it."""
    from txlplan.engine.backend import flush_tiny_numbers

    flush_tiny_numbers()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m txlplan.engine.worker", description=__doc__)
    parser.add_argument("plan", type=Path, metavar="PLAN.TOML")
    parser.add_argument("--steps", type=_positive, help="do at most so many steps in this call")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run directory")
    parser.add_argument("--trials", type=Path, metavar="PLANS.JSON", help="try these plans, and do nothing else")
    parser.add_argument("--seconds", type=float, default=60.0, help="of trials, with the start of this program")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _require_supported(plan_file: PlanFile, path: Path) -> None:
    if problems := unsupported(plan_file):
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))


def _run(
    plan_file: PlanFile, world: World, log: EventLog, stop: StopRequest, options: argparse.Namespace, began_s: float
) -> Finished:
    """Set up, do the task, measure. Torch is loaded here, so that a bad plan is refused before."""
    from txlplan.data import open_dataset
    from txlplan.engine import driver
    from txlplan.engine.backend import open_backend
    from txlplan.engine.tasks import TASKS, Job

    backend = open_backend(plan_file, world)
    dataset = open_dataset(Path(plan_file.data.directory))
    dataset.vocabulary.check(plan_file.workload.model.vocab_size)
    energy_j = driver.energy_counter(backend.device)
    before_j = energy_j() if energy_j else None
    job = Job(
        plan_file=plan_file,
        backend=backend,
        dataset=dataset,
        log=log,
        stop=stop,
        steps=options.steps,
        resume=options.resume,
    )
    ending = _tried(job, options, began_s) if options.trials else TASKS[plan_file.workload.task](job)
    used_j = energy_j() - before_j if energy_j and before_j is not None else None
    finished = _finished(backend, ending, used_j)
    backend.close()
    return finished


def _tried(job: Job, options: argparse.Namespace, began_s: float) -> Literal["ok", "stopped"]:
    from txlplan.engine.trials import Race

    plans = [from_plain(Plan, raw, str(options.trials)) for raw in json.loads(options.trials.read_text(encoding="utf-8"))]
    return Race(job, plans, until_s=began_s + options.seconds).run()


def _finished(backend: Backend, ending: Literal["ok", "stopped"], used_j: float | None) -> Finished:
    """Peaks of the fullest process and energy of all, asked of all processes."""
    from txlplan.engine import footprint

    peak, allocator_peak = backend.maxima(
        [float(read(backend.device) or 0) for read in (footprint.peak_bytes, footprint.allocator_peak_bytes)]
    )
    (total_j,) = backend.sums([used_j or 0.0])
    return Finished(
        outcome=ending,
        peak_memory_bytes=round(peak) or None,
        allocator_peak_bytes=round(allocator_peak) or None,
        energy_j=total_j or None,
    )


def _failure(plan_file: PlanFile, error: BaseException) -> Finished:
    """What went wrong, with what this process can still say of its memory."""
    import torch

    from txlplan.engine import footprint

    device = torch.device("cuda" if plan_file.run.device == "cuda" and torch.cuda.is_initialized() else "cpu")
    return Finished(
        outcome=failures.outcome(error),
        message=failures.message(error),
        peak_memory_bytes=footprint.peak_bytes(device),
        allocator_peak_bytes=footprint.allocator_peak_bytes(device),
    )


def _say(error: BaseException) -> None:
    """For the log of the process: a sentence where we know what is wrong, a traceback where we do not."""
    if isinstance(error, TxlplanError):
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
    else:
        sys.stderr.write("".join(traceback.format_exception(error)))


def _exit(code: int) -> NoReturn:
    """At once where there were several processes: Gloo's threads outlive its groups, and one that lets go of a tensor while the
    interpreter ends aborts the process (torch 2.13)."""
    if "WORLD_SIZE" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    keep_freed_memory()
    _exit(main(age_s=max(0.0, time.time() - psutil.Process().create_time()), alone=True))
