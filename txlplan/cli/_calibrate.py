"""`txlplan calibrate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import StackOption, candidate, measurements_path
from txlplan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.calibration import Calibration, Observations
    from txlplan.planner import Candidate

STORE = "store"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate")(_calibrate)


def _calibrate(
    source: Annotated[str, typer.Argument(help="`store`, the record store, or a CSV file of published runs.")] = STORE,
    system: Annotated[
        str, typer.Option("--system", metavar="SYSTEM", help="Whose runs: id of a system, a .toml file, or `local`.")
    ] = "local",
    stack: StackOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.toml", help="Write the profile here, not among your own.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and report; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a stack to what runs took, and keep it as your own profile if runs left out of the fit are predicted better.

    Fitted are a few factors: what products and other operations reach, host time, whole steps over their operations (of all
    tasks, or of each), memory of a process, the allocator's share. Estimates made from then on use the profile, until `txlplan
    hardware probe` makes a new one.

    Example: txlplan calibrate store --dry-run
    """
    from txlplan import calibration

    output = Output(as_json)
    target = candidate(system, stack=stack)
    found = _observations(source, target)
    calibration.enough(found, target.stack.id, target.cluster.device.name)
    for reason, count in found.left_aside.items():
        output.say(f"note: {count} runs {reason} were left aside")
    told = f"{len(found.used)} observations of {target.cluster.device.name} from {_name(source)}, {_today()}"
    result = calibration.calibrate(target.stack, found.used, told=told)
    path = None if dry_run else _write(output, result, out)
    output.document(_document(result, found, path), lambda console: _print(console, result))
    output.say(f"wrote {path}" if path else "nothing was written (--dry-run)")
    chosen = [*([] if system == "local" else ["--system", system]), *(["--stack", stack] if stack else [])]
    again = shlex.join(["txlplan", "calibrate", source, *chosen])
    output.next_step("txlplan bench, then txlplan validate store" if path else again)


def _observations(source: str, target: Candidate) -> Observations:
    from txlplan import calibration

    if source == STORE:
        from txlplan.records import open_store

        return calibration.from_records(open_store().list(), target.cluster, target.stack.id)
    if not source.endswith(".csv"):
        raise InputError(f"{source!r} holds no runs", hint="`store` is the record store; else give a .csv file")
    from txlplan.validation import read_published

    return calibration.from_published(read_published(measurements_path(source)), target.cluster, target.stack.id)


def _write(output: Output, result: Calibration, out: Path | None) -> Path:
    """Whole or not at all; what was there (a probe's stack, or an earlier calibration) is kept beside it."""
    from txlplan import files, resources
    from txlplan.config import to_toml

    path = out or resources.user("profiles") / "stacks" / f"{result.stack.id}.toml"
    if path.suffix != ".toml":
        raise InputError(f"--out {path}: profiles are .toml files")
    if path.exists():
        before = path.with_name(f"{path.name}.before")
        files.write_text(before, path.read_text(encoding="utf-8"))
        output.say(f"kept the one before: `mv {before} {path}` goes back to it")
    files.write_text(path, to_toml(result.stack))
    return path


def _document(result: Calibration, found: Observations, path: Path | None) -> dict[str, Any]:
    from txlplan.config import to_plain

    def part(name: str) -> Any:
        value = getattr(result, name)
        return None if value is None else to_plain(value) | {"kept": value.better}

    return {
        "stack": result.stack.id,
        "observations": result.n,
        "left_aside": found.left_aside,
        "fitted_scalars": result.scalars,
        "time": part("time"),
        "memory": part("memory"),
        "file": None if path is None else str(path),
    }


def _print(console: Console, result: Calibration) -> None:
    from rich.table import Table

    from txlplan.calibration import MEMORY, TIME
    from txlplan.reporting import percent

    errors = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("mean error", "left out, before", "left out, after", "in sample", ""):
        errors.add_column(header, justify="left" if header in ("mean error", "") else "right")
    moved = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("factor", "moved", "what it is"):
        moved.add_column(header, justify="right" if header == "moved" else "left")
    for name, part, scalars in (("tokens/s", result.time, TIME), ("peak memory", result.memory, MEMORY)):
        if part is None:
            continue
        verdict = "kept" if part.better else "not kept"
        errors.add_row(name, percent(part.before), percent(part.left_out), percent(part.after), verdict)
        for scalar, factor in part.factors.items() if part.better else ():
            moved.add_row(scalar, f"× {factor:.3f}", scalars[scalar].meaning)
    console.print(errors)
    console.print()
    console.print(moved)
    console.print(f"{result.scalars} scalars fitted to {result.n} observations; stack {result.stack.id}", highlight=False)


def _name(source: str) -> str:
    return "the record store" if source == STORE else Path(source).name


def _today() -> str:
    import datetime

    return datetime.datetime.now(datetime.UTC).date().isoformat()
