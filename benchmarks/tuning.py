"""How near tuning comes to the best plan there is, and what it costs, against measuring every plan.

    python benchmarks/tuning.py --workloads 12
    python benchmarks/tuning.py --most 1            one more of the twelve; what was measured before is in --directory

Each workload is a random small Transformer-XL that trains with a random batch on random words. The grid is every plan that
the planner considers for it, each making steps in turn in one process. Tuning then makes its trials as `txlplan run` does, in
a worker of its own that knows nothing of the grid. Of two dozen plans, that one looks best which the machine favoured while it
ran: so the best three of the grid, the planner's first choice and tuning's then run against each other, round after round, each
round begun by another, and what there is to gain is the best of them there, by the median of its rounds.

Of plans that are equally fast, too, one is ahead in any few rounds, and what others do on a shared machine makes steps longer,
by half for seconds on end. So the same is told of undisturbed steps beside it: of each plan the quartile of the shortest, read
from each half of the rounds for the plan that was best in the other half. There a plan that no other beats may come out at more
than 1. With --json FILE all is written down.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

from txlplan.data import open_dataset, prepare
from txlplan.engine import trials
from txlplan.engine.backend import open_backend
from txlplan.engine.event_log import EventLog
from txlplan.engine.stopping import StopRequest
from txlplan.engine.tasks import Job
from txlplan.engine.world import World
from txlplan.launcher import Budget, Planned, RunRequest, describe, plan_request, tune
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.planner import Space
from txlplan.records import new_id

WARMUP_STEPS, GRID_STEPS = 1, 4
BEST, ROUNDS = 3, 12
"""Plans of the grid that run against the chosen ones, and how often: by the medians of five rounds, two plans came out 0.96
apart that twelve found equally fast (1.010; quartiles of the rounds 0.97 and 1.06; workload 11, 2 cores of an AMD EPYC (Zen 3),
2026-11-27)."""
TOO_SLOW = 4.0
"""A plan whose first two steps both take this many times the best median is no candidate for the best, and is left."""
GRID = Space(precision=("fp32",), activation_checkpointing=("none",), runnable=True)
"""bf16 is left out, which is no faster where a CPU has no units for it, and checkpointing, which only makes a step longer: no
model here needs the memory that they save. They would lengthen the time of the grid, a tenth of which tuning is given."""


def main() -> None:
    """Print one line a workload, then the medians and the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=int, default=12)
    parser.add_argument("--directory", type=Path, default=Path("artifacts/tuning"), help="rows that are there are not measured")
    parser.add_argument("--most", type=int, help="workloads that this call may measure")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, left = [], options.workloads if options.most is None else options.most
    options.directory.mkdir(parents=True, exist_ok=True)
    for number in range(options.workloads):
        path = options.directory / f"workload-{number}.json"
        if not path.exists():
            if not left:
                break
            left -= 1
            with tempfile.TemporaryDirectory() as name:
                path.write_text(json.dumps(_measured(number, _data(Path(name)), Path(name))) + "\n")
        rows.append(json.loads(path.read_text()))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    for key in ("first plan", "tuned", "first plan, undisturbed", "tuned, undisturbed", "share of the grid's time"):
        values = [row[key] for row in rows]
        print(f"{key}: median {median(values):.3f}, least {min(values):.3f}, most {max(values):.3f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _data(directory: Path) -> Path:
    source = random.Random(1)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(2000)]
    text = directory / "text.txt"
    text.write_text("\n".join(" ".join(source.choices(words, k=12)) for _ in range(60_000)))
    prepare([text], directory / "data", processes=1)
    return directory / "data"


def _workload(number: int, data: Path, directory: Path) -> Planned:
    """The same for the same number."""
    source = random.Random(number)
    n_head, d_head = source.choice([2, 4, 8]), source.choice([32, 64])
    model = ModelConfig(
        id=f"random-{number}",
        n_layer=source.choice([2, 4, 6]),
        d_model=n_head * d_head,
        n_head=n_head,
        d_head=d_head,
        d_inner=source.choice([2, 4]) * n_head * d_head,
        vocab_size=256,
        tgt_len=source.choice([32, 64, 128]),
        mem_len=source.choice([0, 64, 128]),
    )
    batch = source.choice([8, 12, 16, 32])
    request = RunRequest(
        model=model, data=data, tokens=50_000_000, global_batch=batch, precision="fp32", directory=directory / f"run-{number}"
    )
    return plan_request(request)


def _measured(number: int, data: Path, directory: Path) -> dict[str, Any]:
    planned = _workload(number, data, directory)
    job = _job(planned, data, directory / f"grid-{number}")
    start_s = time.monotonic()
    grid = _grid(planned, job)
    grid_s = time.monotonic() - start_s
    budget = Budget(seconds=0.1 * grid_s)
    start_s = time.monotonic()
    tuned = tune(
        planned.plan_file,
        planned.candidates,
        total_steps=None,
        budget=budget,
        parent=new_id(),
        device=planned.machine.device,
        worker_s=planned.machine.stack.worker_s,
    )
    tuning_s = time.monotonic() - start_s
    first, winner = planned.candidates[0].plan, tuned.winner.plan
    rounds = _head_to_head([first, winner, *sorted(grid, key=lambda plan: -grid[plan])[:BEST]], job)
    return {
        "workload": number,
        "plans": len(grid),
        "first plan": round(_of_best(rounds, first), 3),
        "tuned": round(_of_best(rounds, winner), 3),
        "first plan, undisturbed": round(_of_best_undisturbed(rounds, first), 3),
        "tuned, undisturbed": round(_of_best_undisturbed(rounds, winner), 3),
        "trials": len(tuned.trials),
        "share of the grid's time": round(tuning_s / grid_s, 3),
        "grid s": round(grid_s, 1),
        "best": describe(min(rounds[0], key=lambda plan: _middle_s(rounds, plan))),
        "chosen": describe(winner),
    }


def _job(planned: Planned, data: Path, directory: Path) -> Job:
    plan_file = planned.plan_file
    world = World.from_environment()
    return Job(
        plan_file=replace(plan_file, data=replace(plan_file.data, evaluation_split=None)),
        backend=open_backend(plan_file, world),
        dataset=open_dataset(data),
        log=EventLog(directory, world),
        stop=StopRequest(),
        steps=None,
        resume=False,
    )


def _grid(planned: Planned, job: Job) -> dict[Plan, float]:
    """Tokens/s of every plan, by the median of GRID_STEPS steps; 0 of one that is far too slow."""
    machine = planned.machine
    found: dict[Plan, float] = {}
    for plan in GRID.plans(planned.plan_file.workload, machine.cluster, machine.stack):
        found[plan] = _speed(trials.planned_job(job, plan), max(found.values(), default=0.0))
    return found


Rounds = list[dict[Plan, list[float]]]
"""Seconds of each plan's steps, which are of as many tokens in all."""


def _head_to_head(plans: list[Plan], job: Job) -> Rounds:
    """A few plans in turn, each round begun by another."""
    plans, rounds = list(dict.fromkeys(plans)), []
    for number in range(ROUNDS):
        first = number % len(plans)
        rounds.append({plan: _steps(trials.planned_job(job, plan), 0.0)[1] for plan in plans[first:] + plans[:first]})
    return rounds


def _of_best(rounds: Rounds, plan: Plan) -> float:
    """Its speed over that of the best plan of all rounds."""
    return min(_middle_s(rounds, each) for each in rounds[0]) / _middle_s(rounds, plan)


def _middle_s(rounds: Rounds, plan: Plan) -> float:
    """Of its rounds, each by the median of its steps."""
    return median(median(each[plan]) for each in rounds)


def _of_best_undisturbed(rounds: Rounds, plan: Plan) -> float:
    """The same of undisturbed steps, where the other half of the rounds tells the best plan: the mean of both halves."""
    halves = (rounds[::2], rounds[1::2])
    return fmean(
        _undisturbed_s(half, min(other[0], key=lambda each: _undisturbed_s(other, each))) / _undisturbed_s(half, plan)
        for half, other in zip(halves, reversed(halves), strict=True)
    )


def _undisturbed_s(rounds: Rounds, plan: Plan) -> float:
    """A quarter of its steps took less."""
    return quantiles([step_s for each in rounds for step_s in each[plan]], n=4, method="inclusive")[0]


def _speed(job: Job, best: float) -> float:
    """Tokens/s by the median of the steps; 0 of a plan that is far too slow."""
    tokens, seconds = _steps(job, best)
    return tokens / median(seconds) if seconds else 0.0


def _steps(job: Job, best: float) -> tuple[int, list[float]]:
    """Tokens of a step, and seconds of those after warm-up: none where the first ones are far slower than `best` tokens/s."""
    seconds, tokens = [], 0
    for step in trials.steps_of(job):
        tokens = step.tokens
        seconds.append(step.step_s)
        if len(seconds) == WARMUP_STEPS + 1 and tokens / min(seconds) < best / TOO_SLOW:
            return tokens, []
        if len(seconds) == WARMUP_STEPS + GRID_STEPS:
            break
    return tokens, seconds[WARMUP_STEPS:]


if __name__ == "__main__":
    main()
