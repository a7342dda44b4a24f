"""`txlplan run`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.choices import AttentionPath, OptimizerName, Precision, Schedule, Task
from txlplan.cli import _run_output
from txlplan.cli._output import JsonOption, Output, Stopped
from txlplan.cli._targets import tokens_of
from txlplan.errors import InputError, RunFailedError

if TYPE_CHECKING:
    from txlplan.launcher import Planned, RunRequest, Session


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(run)


def run(
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN", help="A plan.toml or a run directory, run as it is.")] = None,
    task: Annotated[Task | None, typer.Option(help="What to do; by default train.")] = None,
    model: Annotated[str | None, typer.Option(help="Id of a model, or its .toml file.")] = None,
    data: Annotated[Path | None, typer.Option(help="What `txlplan data prepare` wrote.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to train on or score; train, or test to score.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens over all devices, like 5M; by default one pass.")] = None,
    global_batch: Annotated[int | None, typer.Option(min=1, help="Sequences per optimizer step, all devices.")] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="Sequences per device at a time.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Arithmetic.")] = None,
    attention: Annotated[AttentionPath | None, typer.Option(help="How it is computed; by default as is fastest.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Data-parallel processes.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a process.")] = None,
    runner: Annotated[str | None, typer.Option(help="How to start processes: see `txlplan runner list`.")] = None,
    directory: Annotated[Path | None, typer.Option(help="The run directory; by default a new one.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Run directory or checkpoint to start from.")] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option(help="By default adamw.")] = None,
    schedule: Annotated[Schedule | None, typer.Option(help="Of the learning rate; by default cosine.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak; by default by the model's width.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(min=0, help="Steps in which it rises.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, dropout and samples.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Text to continue; may be repeated (generate).")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of samples; 0 takes the likeliest (generate).")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the likeliest k only (generate).")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that have this probability (generate).")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: what is there already is rarer (generate).")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated (generate).")] = None,
    compile_step: Annotated[
        bool | None,
        typer.Option(
            help="Compile the step of a token (generate; pays for long texts), or train by graphs of kernels (on a GPU; where "
            "it is not given, the planner decides)."
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it comes, instead of progress (generate).")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps of this call.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan and command, start nothing.")] = False,
    tuning_budget: Annotated[
        float | None, typer.Option(min=0, help="Seconds for trials; by default 3 % of the predicted run, 60 at most.")
    ] = None,
    no_trials: Annotated[bool, typer.Option("--no-trials", help="Run the planner's choice untried.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, score or generate: plan for this machine, try the best few plans, run the fastest, record it.

    Ctrl-C stops after the step, with a checkpoint; --resume goes on from there. With a plan file (or --resume), what it
    says is run as it is.

    Example: txlplan run --model demo-bytes --data my-data --tokens 5M
    """
    options = dict(locals())
    planned = _planned(options)
    output = Output(as_json)
    if dry_run:
        _run_output.show_dry_run(output, planned, resume=resume, steps=steps, command_line=_command_line(options))
        return
    from txlplan.launcher import Budget, run_planned

    fixed = plan is not None or resume
    on_text = _on_text(planned, as_json) if stream else None
    session = run_planned(
        planned,
        trials=not (no_trials or fixed),
        budget=Budget(seconds=tuning_budget),
        resume=resume,
        steps=steps,
        say=output.say,
        on_text=on_text,
    )
    _finish(output, session, is_shown=stream)


def _command_line(options: dict[str, Any]) -> str:
    """The command with these options that starts the run: without --dry-run, quoted for a shell."""
    words = ["txlplan", "run"] + ([str(options["plan"])] if options["plan"] else [])
    if options["compile_step"] is False:
        words.append("--no-compile-step")
    for name, value in options.items():
        if name in ("plan", "dry_run", "as_json") or not _is_given(value):
            continue
        for each in value if isinstance(value, list) else [value]:
            words += ["--" + name.replace("_", "-")] + ([] if each is True else [str(each)])
    return shlex.join(words)


def _planned(options: dict[str, Any]) -> Planned:
    """From a plan file or run directory where one is named, else from the options."""
    from txlplan.launcher import plan_again, plan_request

    path = options["plan"] or (options["directory"] if options["resume"] else None)
    if path is None:
        if options["resume"]:
            raise InputError("--resume needs the run to continue", hint="txlplan run RUN_DIRECTORY --resume")
        return plan_request(_request(options))
    unused = [name for name in _REQUEST_ONLY if _is_given(options[name])]
    if unused:
        named = "--" + unused[0].replace("_", "-")
        raise InputError(f"{named} has no effect on a plan that exists already: {path}", hint="edit the plan file instead")
    return plan_again(path, directory=options["directory"], runner=options["runner"])


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []


_OPTIMIZATION = ("optimizer", "schedule", "learning_rate", "warmup_steps")
_SAMPLING = ("prompt", "temperature", "top_k", "top_p", "repetition_penalty", "stop")
_CHOICES = (
    "split",
    "global_batch",
    "micro_batch",
    "precision",
    "attention",
    "devices",
    "threads",
    "runner",
    "directory",
    "data",
    "checkpoint",
    "compile_step",
)
_REQUEST_ONLY = (
    "task",
    *_OPTIMIZATION,
    *_SAMPLING,
    "model",
    "data",
    "split",
    "tokens",
    "global_batch",
    "micro_batch",
    "precision",
    "attention",
    "devices",
    "threads",
    "checkpoint",
    "compile_step",
    "seed",
)


def _request(options: dict[str, Any]) -> RunRequest:
    from txlplan.launcher import RunRequest
    from txlplan.model import models
    from txlplan.plan_file import Sampling

    given = {name: value for name, value in options.items() if _is_given(value)}
    empty = next((name for name, value in given.items() if value == ""), None)
    if empty is not None:
        raise InputError(f"--{empty.replace('_', '-')} is empty", hint="leave it out for the default")
    _refuse_other_tasks(given)
    chosen = {name: given[name] for name in _CHOICES if name in given}
    return RunRequest(
        task=given.get("task", "train"),
        model=models.get(given["model"]) if "model" in given else None,
        tokens=tokens_of(given.get("tokens")),
        seed=given.get("seed", 1),
        optimization={name: given[name] for name in _OPTIMIZATION if name in given},
        sampling=Sampling(**_sampling(given)),
        **chosen,
    )


def _sampling(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of Sampling that are not to be the defaults."""
    chosen = {name: given[name] for name in _SAMPLING if name in given}
    if "prompt" in given:
        chosen["prompt"], *more = given["prompt"]
        chosen["more_prompts"] = tuple(more)
    if "stop" in given:
        chosen["stop"] = tuple(given["stop"])
    return chosen


def _on_text(planned: Planned, as_json: bool) -> Callable[[str], None]:
    """Writes text on stdout as it comes. Raises InputError where there is none, or where texts would mix."""
    if planned.plan_file.workload.task != "generate" or as_json:
        raise InputError(f"--stream has no effect {'beside --json' if as_json else 'but on --task generate'}")
    if planned.plan_file.plan.micro_batch > 1:
        raise InputError(f"--stream prints one text; the plan has {planned.plan_file.plan.micro_batch}")

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return write


def _refuse_other_tasks(given: dict[str, Any]) -> None:
    """An option that belongs to another task would have no effect."""
    wanted = given.get("task", "train")
    for tasks, names in ((("train",), _OPTIMIZATION), (("generate",), _SAMPLING), (("train", "score"), ("attention",))):
        if wanted not in tasks and (unused := [name for name in names if name in given]):
            raise InputError(f"--{unused[0].replace('_', '-')} has no effect on --task {wanted}")


def _finish(output: Output, session: Session, *, is_shown: bool) -> None:
    """Say how it ended: the result, exit code 130 for a run that was stopped, an error for one that failed."""
    record = session.record
    if record is None:
        trials = [trial.id for trial in session.tuned.trials] if session.tuned else []
        told = "stopped during a trial; nothing was trained"
        output.document({"outcome": "stopped", "message": told, "trials": trials}, lambda console: console.print(told))
        raise Stopped
    if record.outcome in ("oom", "failed"):
        raise RunFailedError(f"run {record.id}: {record.outcome}: {record.message}", hint=_run_output.failure_hint(record))
    if is_shown:
        sys.stdout.write("\n")
    else:
        _run_output.show_record(output, session)
    if command := _run_output.next_command(record, session.steps_left):
        output.next_step(command)
    if record.outcome == "stopped":
        raise Stopped
