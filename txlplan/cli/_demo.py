"""`txlplan demo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.errors import BarMissedError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.demo import Demo

MOST_BITS_PER_CHARACTER = 3.2
MOST_SPEED_ERROR, MOST_MEMORY_ERROR = 0.25, 0.10


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(demo)


def demo(
    directory: Annotated[Path, typer.Option(help="Where everything is put.")] = Path("txlplan-demo"),
    train_s: Annotated[float, typer.Option(min=1, help="About how long to train, in seconds.")] = 120.0,
    check: Annotated[
        bool, typer.Option("--check", help="End with exit code 5 unless the predictions and the model are good enough.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See the whole product work on this machine: real text to a trained model, predictions beside measurements.

    Text is prepared, this machine probed, memory and speed predicted, a plan chosen, tried and run, a held-out split
    scored, text sampled, and a report written.

    Example: txlplan demo
    """
    from txlplan.demo import run_demo

    output = Output(as_json)
    result = run_demo(directory, train_s=train_s, say=output.say)
    summary = _summary(result)
    output.document(summary, lambda console: _render(console, summary))
    output.next_step(f"open {result.report}")
    if check:
        _check(summary)


def _summary(result: Demo) -> dict[str, Any]:
    from txlplan.config import to_plain

    row = result.prediction
    return {
        "bits_per_character": result.bits_per_character,
        "unigram_entropy_bits_per_character": result.unigram_entropy_bits_per_character,
        "tokens_per_s": to_plain(row.tokens_per_s) | {"relative_error": row.tokens_per_s.relative_error},
        "peak_memory_bytes": to_plain(row.peak_memory_bytes) | {"relative_error": row.peak_memory_bytes.relative_error},
        "sample": result.sample.text,
        "records": {"run": result.run.id, "score": result.score.id, "sample": result.sample.id},
        "directory": str(result.directory),
        "run_directory": result.run.run_directory,
        "report": str(result.report),
    }


def _render(console: Console, summary: dict[str, Any]) -> None:
    from txlplan import units

    speed, memory = summary["tokens_per_s"], summary["peak_memory_bytes"]
    entropy, bits = summary["unigram_entropy_bits_per_character"], summary["bits_per_character"]
    rows = {
        "held-out score": f"{bits:.3f} bits per character (unigram entropy {entropy:.3f})",
        "tokens/s": _compared(speed, units.format_count, MOST_SPEED_ERROR),
        "peak memory": _compared(memory, units.format_bytes, MOST_MEMORY_ERROR),
        "record": summary["records"]["run"],
        "run": summary["run_directory"],
        "report": summary["report"],
    }
    text = [summary["sample"].strip(), "", *(f"{name:<15} {value}" for name, value in rows.items())]
    console.print("\n".join(text), markup=False, highlight=False, soft_wrap=True)


def _compared(scored: dict[str, Any], show: Callable[[float | None], str], most: float) -> str:
    return f"predicted {show(scored['predicted'])}, measured {show(scored['measured'])}: {_verdict(scored, most)}"


def _verdict(scored: dict[str, Any], most: float) -> str:
    error = scored["relative_error"]
    if error is None:
        return "not measured"
    return f"{error:+z.1%}, {'within' if abs(error) <= most else 'outside'} {most:.0%}"


def _check(summary: dict[str, Any]) -> None:
    missed = []
    if summary["bits_per_character"] >= MOST_BITS_PER_CHARACTER:
        missed.append(f"{summary['bits_per_character']:.3f} bits per character is not below {MOST_BITS_PER_CHARACTER}")
    for name, most in (("tokens_per_s", MOST_SPEED_ERROR), ("peak_memory_bytes", MOST_MEMORY_ERROR)):
        error = summary[name]["relative_error"]
        if error is None or abs(error) > most:
            missed.append(f"{name}: {_verdict(summary[name], most)}")
    if missed:
        raise BarMissedError("; ".join(missed), hint="a busy machine is predicted badly: try again on an idle one")
