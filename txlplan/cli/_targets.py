"""Options that several commands share, and what they stand for: the machine to plan for, and its estimate as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.errors import InputError
from txlplan.units import format_bytes, format_j, format_rate, format_s

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.choices import Task
    from txlplan.estimates import Estimate, Range
    from txlplan.planner import Candidate

LOCAL = "local"
"""The system name that stands for this machine."""

ModelOption = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Id of a model (`txlplan model list`) or a .toml file.")
]
SystemOption = Annotated[
    str, typer.Option("--system", metavar="SYSTEM", help="Id of a system, a .toml file, or `local` for this machine.")
]
DevicesOption = Annotated[
    int | None,
    typer.Option("--devices", min=1, help="Devices to use in all, or processes to share a CPU; default: every device."),
]
NodesOption = Annotated[int, typer.Option("--nodes", help="How many of the system.")]
StackOption = Annotated[
    str | None, typer.Option("--stack", metavar="STACK", help="Id of a software stack; default: the system's own.")
]
DeadlineOption = Annotated[str | None, typer.Option("--deadline", help="Longest time, e.g. '3 d'.")]
MaxPowerOption = Annotated[str | None, typer.Option("--max-power", help="Most rated power in use, e.g. '10 kW'.")]
MemoryHeadroomOption = Annotated[
    float | None, typer.Option("--memory-headroom", help="Share of a device's memory to leave free; by default 0.05.")
]
WithoutOption = Annotated[
    str | None,
    typer.Option(
        "--without",
        metavar="A,B,…",
        help="tensor-, pipeline-, context-parallel, zero, offload, checkpointing, compiled-attention.",
    ),
]
RunnableOption = Annotated[bool, typer.Option("--runnable", help="Only plans that `txlplan run` executes.")]


def candidate(system: str, *, n_nodes: int = 1, n_devices: int | None = None, stack: str | None = None) -> Candidate:
    """The cluster and stack that are named; `local` is this machine."""
    from txlplan import advice

    return advice.candidate(system, n_nodes=n_nodes, n_devices=n_devices, stack=stack)


def shared_by(
    system: str, task: Task, *, n_nodes: int = 1, n_devices: int | None = None, stack: str | None = None
) -> tuple[Candidate, int]:
    """The same, and the data-parallel processes that so many devices stand for: of a CPU, those that share it."""
    from txlplan import advice

    return advice.shared_by(system, task, n_nodes=n_nodes, n_devices=n_devices, stack=stack)


def one_of(value: str, known: tuple[str, ...], option: str) -> Any:
    """`value`, checked. Raises InputError that offers the nearest known one."""
    import difflib

    if value in known:
        return value
    nearest = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    raise InputError(f"{option} {value!r} is not known", hint=hint)


def tokens_of(text: str | None) -> int | None:
    """A number of tokens as users write it: `1e8`, `1.8e9`, `100M`. Raises InputError."""
    from txlplan.units import COUNT

    if text is None:
        return None
    try:
        return int(COUNT.parse(text))
    except ValueError as error:
        raise InputError(f"--tokens: {error}") from None


def ranged(value: Range | None, text: Any) -> str:
    """`12.3 ms (10.1 ms to 15.0 ms)`; the interval is the 80 % one."""
    return "unknown" if value is None else f"{text(value.value)} ({text(value.low)} to {text(value.high)})"


def print_estimate(console: Console, estimate: Estimate) -> None:
    """The figures of an estimate with their 80 % ranges, one a line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    mfu = "unknown" if estimate.mfu is None else f"{estimate.mfu:.1%}"
    fits = "fits" if estimate.fits else "DOES NOT FIT"
    if estimate.tight:
        fits = "fits by its best figure; the high end of its range does not"
    for name, text in (
        ("throughput", ranged(estimate.tokens_per_s, lambda value: format_rate(value, "tokens"))),
        ("step", ranged(estimate.step_s, format_s)),
        ("peak memory", ranged(estimate.peak_memory_bytes, format_bytes)),
        ("may use", f"{format_bytes(estimate.capacity_bytes)}: {fits}"),
        ("MFU", mfu),
        ("energy per step", ranged(estimate.energy_j_per_step, format_j)),
        ("stack", estimate.stack + (" (extrapolated)" if estimate.extrapolated else "")),
    ):
        table.add_row(name, text)
    console.print(table)
    for note in estimate.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def print_terms(console: Console, estimate: Estimate) -> None:
    """Time and memory terms, largest first, with share, formula, provenance and bound."""
    from rich.table import Table

    for quantity, total, text in (
        ("time", estimate.step_s.value, format_s),
        ("memory", estimate.peak_memory_bytes.value, format_bytes),
    ):
        table = Table(box=None, pad_edge=False)
        for header in (f"{quantity} term", "share", "value", "bound", "provenance", "formula"):
            table.add_column(header, justify="right" if header in ("share", "value") else "left", overflow="fold")
        for term in estimate.part("time" if quantity == "time" else "memory"):
            share = f"{term.value / total:.1%}"
            table.add_row(term.name, share, text(term.value), term.bound or "", term.provenance, term.formula)
        console.print()
        console.print(table)


def measurements_path(source: str) -> Path:
    """The file; a bare name that is none here is looked up among the shipped measurements."""
    from txlplan import resources

    path, shipped = Path(source).expanduser(), resources.shipped("profiles") / "measurements" / source
    return shipped if not path.is_file() and path.name == source and shipped.is_file() else path
