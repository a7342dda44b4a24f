"""Trials of several plans in one process: torch, data and weights are loaded once, and each plan makes real steps.

Successive halving (Karnin et al. 2013, Almost Optimal Exploration in Multi-Armed Bandits; Jamieson & Talwalkar 2016,
arXiv:1502.07943): every plan for which there is time makes a few steps, the faster half of the first one's rivals twice as
many, and so on; the last rival goes on against the first plan until both have made many steps, or the time is over. The first
plan, which is to be beaten, takes part in every round: a machine that drifts is then the same for all. How many rivals there is
time for is told by the first plan's own steps, not by what was predicted of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Literal

from txlplan.engine import evaluation, failures
from txlplan.engine.backend import Backend, as_planned, computing
from txlplan.engine.events import Step, Tried, Trying
from txlplan.engine.generation_task import generator, prompts_of
from txlplan.engine.own_attention import require_attention
from txlplan.engine.tasks import Ending, Job, trained_model, trainer_of
from txlplan.errors import RunFailedError
from txlplan.plan_file import Plan, PlanFile

WARMUP_STEPS = 1
"""Before those that count, each time that a plan's turn comes."""
FIRST_STEPS = 2
"""That count, in the first round."""
MOST_STEPS = 16
"""After a turn of so many the last rival is beaten or not."""
HOPELESS = 3.0
"""A plan whose step takes this many times longer for a token than the best plan's median is not tried further, ..."""
WORTH_SAVING = 0.05
"""... where its other steps would take more than this share of its time: a short step that was held up is no verdict."""


@dataclass(kw_only=True, slots=True)
class _Tried:
    """What is known of one plan."""

    seconds: list[float] = field(default_factory=list)
    """Of a token in each step that counts."""
    outcome: Literal["ok", "oom", "failed"] = "ok"
    message: str = ""

    @property
    def token_s(self) -> float:
        """Median; infinite where nothing counts."""
        return median(self.seconds) if self.seconds and self.outcome == "ok" else float("inf")


class Race:
    """The trials of `plans`, which agree in their number of processes; an event says whose turn it is and how each ended.

    `until_s`, on the clock of `perf_counter`: when they should be over.
    """

    def __init__(self, job: Job, plans: Sequence[Plan], *, until_s: float) -> None:
        self._job = job
        self._plans = plans
        self._end_s = until_s
        self._tried = [_Tried() for _ in plans]
        self._shortest_s = 0.0
        """Of all steps so far."""

    def run(self) -> Ending:
        """Try until the last rival has made MOST_STEPS at a time, the time is over, or somebody asks to stop."""
        self._job.start(0, None)
        self._compile_first()
        rivals, steps = list(range(1, len(self._plans))), FIRST_STEPS
        self._turn(0, steps, until_s=self._turn_ends_s(1 + len(rivals)), first=True)
        rivals = rivals[: self._room()]
        self._round(rivals, steps, first=True)
        while steps < MOST_STEPS:
            rivals, first = self._fastest_first(rivals), self._fastest_first([0])
            if len(first + rivals) < 2 or not self._fits(2 * self._least_s, self._end_s) or self._job.stopping():
                break
            rivals, steps = rivals[: max(1, len(rivals) // 2)], 2 * steps
            self._round(first + rivals, steps)
        for number, tried in enumerate(self._tried):
            if tried.seconds or tried.outcome != "ok":
                self._job.log.emit(Tried(candidate=number, outcome=tried.outcome, message=tried.message))
        return "stopped" if self._job.stopping() else "ok"

    def _compile_first(self) -> None:
        """So that it takes no plan's share of the time. What fails here fails again where the plan is tried, which says so."""
        task = self._job.plan_file.workload.task
        for plan in self._plans:
            with contextlib.suppress(RunFailedError):
                require_attention(plan, computing(self._job.backend, plan, task).precision)

    def _fastest_first(self, numbers: Sequence[int]) -> list[int]:
        """Those that ran."""
        token_s = [each.token_s for each in self._tried]
        return sorted((number for number in numbers if token_s[number] < float("inf")), key=token_s.__getitem__)

    @property
    def _least_s(self) -> float:
        """A turn lasts at least so long."""
        return (WARMUP_STEPS + 1) * self._shortest_s

    def _room(self) -> int:
        """How many rivals have time for a first turn, if their steps take as long as the first plan's; one at least."""
        turn_s = (WARMUP_STEPS + FIRST_STEPS) * self._shortest_s
        return max(1, int(self._left_s(self._end_s) / turn_s)) if turn_s else len(self._plans)

    def _turn_ends_s(self, turns: int) -> float:
        """When a turn should be over, if so many share the time that is left: a point in time, as `until_s`."""
        return perf_counter() + max(0.0, self._end_s - perf_counter()) / turns

    def _round(self, numbers: Sequence[int], steps: int, *, first: bool = False) -> None:
        """A turn of each, while there is time."""
        for place, number in enumerate(numbers):
            if not self._fits(self._least_s, self._end_s) or self._job.stopping():
                return
            self._turn(number, steps, until_s=self._turn_ends_s(len(numbers) - place), first=first)

    def _turn(self, number: int, steps: int, *, until_s: float, first: bool) -> None:
        """Warm up and make `steps` steps that count, or fewer when its share of the time is over; a failure is its outcome.

        On a busy machine a step may take a hundred times longer than was predicted: the first plan must not take all.
        """
        self._job.log.emit(Trying(candidate=number, steps=steps))
        tried = self._tried[number]
        try:
            self._steps(number, steps, until_s=until_s, first=first)
        except Exception as error:
            if self._job.backend.world.size > 1:
                raise
            tried.outcome, tried.message = failures.outcome(error), failures.message(error)
        gc.collect()

    def _steps(self, number: int, steps: int, *, until_s: float, first: bool) -> None:
        job = planned_job(self._job, self._plans[number])
        tried, best = self._tried[number], min(each.token_s for each in self._tried)
        for count, event in enumerate(steps_of(job), start=1):
            (step_s,) = self._job.backend.maxima([event.step_s])
            self._shortest_s = min(self._shortest_s or step_s, step_s)
            counts = count > WARMUP_STEPS
            if counts:
                tried.seconds.append(step_s / event.tokens)
            if counts or first:
                self._job.log.emit(dataclasses.replace(event, step_s=step_s))
            to_come = WARMUP_STEPS + steps - count
            long = to_come * step_s > WORTH_SAVING * max(0.0, self._left_s(until_s))
            sets_up = self._plans[number].compile and not counts
            hopeless = long and not sets_up and step_s / event.tokens > HOPELESS * best
            if to_come == 0 or hopeless or (counts and not self._fits(step_s, until_s)) or self._job.stopping():
                return

    def _fits(self, seconds: float, until_s: float) -> bool:
        """Whether what takes so long is over by then."""
        return self._left_s(until_s) >= seconds

    def _left_s(self, time_s: float) -> float:
        """Until then, by the process that is latest: all decide alike."""
        return -self._job.backend.maxima([perf_counter() - time_s])[0]


def planned_job(job: Job, plan: Plan) -> Job:
    """The same job by another plan, for which this process is set up."""
    plan_file: PlanFile = dataclasses.replace(job.plan_file, plan=plan)
    backend: Backend = as_planned(job.backend, plan, plan_file.workload.task)
    return dataclasses.replace(job, plan_file=plan_file, backend=backend)


def steps_of(job: Job) -> Iterator[Step]:
    """Endless real steps of a job, begun anew and saved nowhere (score begins again at the end of the split)."""
    task = job.plan_file.workload.task
    return {"train": _train, "score": _score, "generate": _generate}[task](job)


def _train(job: Job) -> Iterator[Step]:
    trainer = trainer_of(job)
    while True:
        made = trainer.train_step()
        yield Step(step=made.step, step_s=made.step_s, tokens=trainer.tokens_per_step, loss=made.loss)


def _score(job: Job) -> Iterator[Step]:
    model, _ = trained_model(job)
    windows = evaluation.windows(job.plan_file, job.backend, job.dataset, job.plan_file.data.split)
    while True:
        yield from (evaluation.step_event(scored) for scored in evaluation.segments(model, job.backend, windows))


def _generate(job: Job) -> Iterator[Step]:
    model, _ = trained_model(job)
    prompts = prompts_of(job.plan_file, job.dataset.vocabulary)
    tokens = generator(job.plan_file, model, job.backend, job.log.emit).tokens(prompts)
    start_s = perf_counter()
    for step, _ in enumerate(tokens, start=1):
        yield Step(step=step, step_s=perf_counter() - start_s, tokens=len(prompts))
        start_s = perf_counter()
