"""What `txlplan run` prints: a plan before it runs, and its record after."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txlplan.cli._output import Output
from txlplan.units import counted, format_bytes, format_count, format_rate, format_s

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.estimates import Range
    from txlplan.launcher import Planned, Session
    from txlplan.records import Record

_Line = tuple[str, str]


def show_dry_run(output: Output, planned: Planned, *, resume: bool, steps: int | None, command_line: str) -> None:
    """The plan, its estimate and the worker's command; `command_line` is what runs it."""
    from txlplan.config import to_plain
    from txlplan.launcher import absolute, describe, prepared

    plan_file, estimate = absolute(planned.plan_file), planned.candidates[0].estimate
    command = prepared(plan_file, resume=resume, steps=steps)
    environment = [f"{name}={value}" for name, value in command.environment.items()]
    model = plan_file.workload.model
    lines = [
        ("model", model.id or model.name),
        ("task", plan_file.workload.task),
        ("tokens", format_count(plan_file.workload.tokens)),
        ("plan", f"{describe(plan_file.plan)} ({planned.n_costed:,} costed)"),
        ("machine", f"{planned.machine.device.name}, stack {planned.machine.stack.id}"),
        ("predicted", f"{format_rate(estimate.tokens_per_s.value, 'tokens')} {_between(estimate.tokens_per_s, 'tokens')}"),
        ("peak memory", f"{format_bytes(estimate.peak_memory_bytes.value)} of {format_bytes(estimate.capacity_bytes)}"),
        ("time", format_s(None if planned.total_steps is None else planned.total_steps * estimate.step_s.value)),
        ("run directory", plan_file.run.directory),
        ("command", shlex.join([*environment, *command.command])),
    ]
    data = {"plan_file": to_plain(plan_file), "estimate": to_plain(estimate), "launch": to_plain(command)}
    output.document(data, lambda console: _print_lines(console, lines))
    output.next_step(command_line)


def show_record(output: Output, session: Session) -> None:
    """The result of a run: the text that was generated alone on stdout, else what was predicted beside what was measured."""
    from txlplan.config import to_plain

    record = session.record
    assert record is not None
    document = to_plain(record)
    document["trials"] = [trial.id for trial in session.tuned.trials] if session.tuned else []
    document["steps_left"] = session.steps_left
    if record.text is not None:
        output.document(document, lambda console: console.print(record.text, markup=False, highlight=False, soft_wrap=True))
        return
    output.document(document, lambda console: _print_lines(console, list(_lines(record, session.steps_left))))


def next_command(record: Record, steps_left: int | None = None) -> str | None:
    """What to do with a run that ended well or was stopped; only training goes on from where it was."""
    if record.outcome == "stopped" or steps_left:
        return f"txlplan run {record.run_directory} --resume" if record.workload.task == "train" else None
    if record.workload.task == "train":
        return f"txlplan run --task score --checkpoint {record.run_directory}"
    return f"txlplan report {record.id} --output report.html"


def failure_hint(record: Record) -> str:
    """What the worker advised, else where to look."""
    from txlplan.launcher import log_tail

    advice = [line for line in log_tail(Path(str(record.run_directory))).splitlines() if line.startswith("hint: ")]
    if advice:
        return advice[-1].removeprefix("hint: ")
    return f"`txlplan records show {record.id}` has the record, {record.run_directory}/worker.log what the worker said"


def _lines(record: Record, steps_left: int | None = None) -> Iterator[_Line]:
    yield "outcome", record.outcome + (f": {record.message}" if record.message else "")
    only_warm = bool(record.step_s) and not record.steady_steps()
    yield "steps", format_count(len(record.step_s)) + (", all of them warm-up" if only_warm else "")
    if steps_left:
        yield "left", f"{counted(steps_left, 'step')} to the end of the plan: --resume goes on"
    if record.losses and (record.workload.task == "train" or record.perplexity is not None):
        last = [point for point in record.losses if point.split == record.losses[0].split][-1]
        yield f"{last.split} loss", f"{last.loss:.3f} nats per token"
    if record.perplexity is not None:
        yield "perplexity", f"{record.perplexity:,.2f}"
    if record.bits_per_character is not None:
        yield "bits per character", f"{record.bits_per_character:.3f}"
    speed, memory = (record.estimate.tokens_per_s, record.estimate.peak_memory_bytes) if record.estimate else (None, None)
    yield "speed", _beside(record.tokens_per_s, speed, "tokens")
    yield "peak memory", _beside(record.peak_memory_bytes, memory, None)
    yield "run directory", str(record.run_directory)
    yield "record", record.id


def _beside(measured: float | None, predicted: Range | None, what: str | None) -> str:
    """`26,639 tokens/s (predicted 25,000 tokens/s, 6.2% too low)`, or that there is nothing to compare."""

    def shown(value: float | None) -> str:
        return format_bytes(value) if what is None else format_rate(value, what)

    if predicted is None:
        return shown(measured)
    if not measured:
        return f"not measured, nothing to compare (predicted {shown(predicted.value)})"
    error = predicted.value / measured - 1
    return f"{shown(measured)} (predicted {shown(predicted.value)}, {abs(error):.1%} too {'high' if error > 0 else 'low'})"


def _between(range_: Range, what: str) -> str:
    return f"({format_rate(range_.low, what)} to {format_rate(range_.high, what)})"


def _print_lines(console: Console, lines: list[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in lines) + 2
    for name, text in lines:
        console.print(f"{name:<{width}}{text}", markup=False, highlight=False, soft_wrap=True)
