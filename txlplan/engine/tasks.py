"""The three things a worker does: train, score, generate. Each emits its events and says whether it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from txlplan.choices import Task
from txlplan.data import Dataset
from txlplan.engine import checkpoint, evaluation, footprint
from txlplan.engine.backend import Backend, computing
from txlplan.engine.event_log import EventLog
from txlplan.engine.events import Evaluating, Noted, Saved, Started, Step
from txlplan.engine.generation_task import DEFAULT_NEW_TOKENS, generate_text, prompts_of
from txlplan.engine.own_attention import require_attention
from txlplan.engine.stopping import StopRequest
from txlplan.engine.training import StepResult, Trainer, create_model
from txlplan.errors import InputError
from txlplan.nn import TransformerXL
from txlplan.plan_file import PlanFile

Ending = Literal["ok", "stopped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One call of the worker."""

    plan_file: PlanFile
    backend: Backend
    dataset: Dataset
    log: EventLog
    stop: StopRequest
    steps: int | None
    """At most so many steps in this call; None: all that are left."""
    resume: bool

    @property
    def run_directory(self) -> Path:
        """Where events and checkpoints go."""
        return Path(self.plan_file.run.directory)

    def stopping(self) -> bool:
        """Whether any process has been asked to stop: the same answer on all of them."""
        return self.backend.maxima([float(self.stop.requested)])[0] > 0

    def start(self, step: int, total_steps: int | None) -> None:
        """Say that the next thing is a step."""
        self.log.emit(Started(process_id=os.getpid(), world_size=self.backend.world.size, step=step, total_steps=total_steps))


def train(job: Job) -> Ending:
    """Train to workload.tokens, checkpointing and evaluating as the plan says; a checkpoint stands at the end."""
    trainer = trainer_of(job)
    _restore(job, trainer)
    job.start(trainer.step, trainer.total_steps)
    run, saved_step = job.plan_file.run, trainer.step
    last = trainer.total_steps if job.steps is None else min(trainer.total_steps, trainer.step + job.steps)
    stopped = False
    while trainer.step < last and not (stopped := job.stopping()):
        job.log.emit(_step_event(job, trainer, trainer.train_step()))
        if trainer.note:
            job.log.emit(Noted(text=trainer.note))
            trainer.note = ""
        if trainer.step % run.checkpoint_every_steps == 0 and trainer.step < last:
            saved_step = _save(job, trainer, final=False)
        if _evaluation_due(job, trainer):
            _evaluate(job, trainer)
    if trainer.step > saved_step:
        _save(job, trainer, final=True)
    if trainer.step == trainer.total_steps and not _evaluation_due(job, trainer):
        _evaluate(job, trainer)
    return "stopped" if stopped else "ok"


def score(job: Job) -> Ending:
    """Score a split, the whole of it unless workload.tokens or the number of steps says less.

    Raises RunFailedError where this machine cannot compile what the plan needs.
    """
    require_attention(job.plan_file.plan, job.backend.precision)
    _note_precision(job)
    model, trained_steps = trained_model(job)
    split = job.plan_file.data.split
    windows = evaluation.windows(job.plan_file, job.backend, job.dataset, split)
    tokens = job.plan_file.workload.tokens
    wanted = len(windows) if tokens is None else -(-tokens // (windows.rows * windows.tgt_len))
    steps = min(len(windows), wanted, job.steps or wanted)
    job.start(0, steps)

    def on_step(scored: evaluation.Scored) -> bool:
        job.log.emit(evaluation.step_event(scored))
        return not job.stopping()

    loss = evaluation.score(model, job.backend, windows, max_steps=steps, on_step=on_step)
    if loss is None:
        return "stopped"
    job.log.emit(evaluation.evaluated(job.dataset, split, loss, trained_steps))
    return "ok"


def generate(job: Job) -> Ending:
    """Continue each prompt by workload.tokens new tokens, or up to a stop string."""
    prompts_of(job.plan_file, job.dataset.vocabulary)
    _note_precision(job)
    model, _ = trained_model(job)
    wanted = job.plan_file.workload.tokens or DEFAULT_NEW_TOKENS
    steps = min(wanted, job.steps or wanted)
    job.start(0, steps)
    ended = generate_text(
        job.plan_file, model, job.backend, job.dataset.vocabulary, steps=steps, emit=job.log.emit, stopping=job.stopping
    )
    return "ok" if ended else "stopped"


def _note_precision(job: Job) -> None:
    planned, computed = job.plan_file.plan.precision, job.backend.precision
    if computed != planned:
        job.log.emit(
            Noted(text=f"this CPU is no faster in {planned}, for which it widens weights at each use: computing in {computed}")
        )


TASKS: dict[Task, Callable[[Job], Ending]] = {"train": train, "score": score, "generate": generate}


def trainer_of(job: Job) -> Trainer:
    """As the plan says. Raises RunFailedError where this machine cannot compile what that needs."""
    require_attention(job.plan_file.plan, job.backend.precision)
    return Trainer(job.plan_file, job.backend, job.dataset)


def _restore(job: Job, trainer: Trainer) -> None:
    """Go on from this run's newest checkpoint, or begin: with the weights of run.checkpoint where one is given.

    Of another run only the weights are taken: its step, optimizer, streams and schedule belong to what it trained for.
    """
    own = checkpoint.newest(job.run_directory)
    if own is not None and not job.resume:
        raise InputError(
            f"{job.run_directory} already holds {own.name}", hint="--resume goes on from it; another directory begins anew"
        )
    if job.backend.world.is_first:
        checkpoint.remove_partial(job.run_directory)
    given = job.plan_file.run.checkpoint
    if own is not None:
        checkpoint.load_training(own, trainer)
    elif given is not None:
        checkpoint.load_weights(checkpoint.locate(Path(given)), trainer.model)


def trained_model(job: Job) -> tuple[TransformerXL, int]:
    """The model with the weights of run.checkpoint, and the optimizer steps behind them."""
    model = create_model(job.plan_file, job.backend).eval().requires_grad_(False)
    return model, checkpoint.load_weights(checkpoint.locate(Path(str(job.plan_file.run.checkpoint))), model)


def _step_event(job: Job, trainer: Trainer, result: StepResult) -> Step:
    read_memory = result.step % job.plan_file.run.log_every_steps == 0
    return Step(
        step=result.step,
        step_s=result.step_s,
        tokens=trainer.tokens_per_step,
        loss=result.loss,
        learning_rate=result.learning_rate,
        memory_bytes=footprint.in_use_bytes(job.backend.device) if read_memory else None,
    )


def _save(job: Job, trainer: Trainer, *, final: bool) -> int:
    trainer.check_weights()
    path = checkpoint.save(job.run_directory, trainer, final=final)
    job.log.emit(Saved(step=trainer.step, path=str(path)))
    return trainer.step


def _evaluation_due(job: Job, trainer: Trainer) -> bool:
    every = job.plan_file.run.evaluate_every_steps
    return every is not None and trainer.step > 0 and trainer.step % every == 0


def _evaluate(job: Job, trainer: Trainer) -> None:
    """Score the evaluation split, if there is one."""
    split = job.plan_file.data.evaluation_split
    if split is None:
        return
    backend = computing(job.backend, job.plan_file.plan, "score")
    windows = evaluation.windows(job.plan_file, backend, job.dataset, split)
    job.log.emit(Evaluating(step=trainer.step, split=split, segments=len(windows)))
    loss = evaluation.score(trainer.model, backend, windows, on_step=lambda _: not job.stopping())
    if loss is None:
        job.log.emit(Noted(text=f"stopped while scoring {split} after step {trainer.step}: its loss is not known"))
    else:
        job.log.emit(evaluation.evaluated(job.dataset, split, loss, trainer.step))
