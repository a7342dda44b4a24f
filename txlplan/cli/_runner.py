"""`txlplan runner`: how a plan becomes processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from txlplan.cli._output import JsonOption, Output

if TYPE_CHECKING:
    from rich.console import Console

_group = typer.Typer(help="How a plan becomes processes: list, show and copy runners.", no_args_is_help=True)
_NAME = Annotated[str, typer.Argument(help="Id of a runner, as `txlplan runner list` shows it.")]


@_group.command("list")
def list_runners(as_json: JsonOption = False) -> None:
    """List the runners, your own before the shipped ones.

    Example: txlplan runner list
    """
    from txlplan.launcher import get_runner, runner_paths

    found = [(get_runner(name), path) for name, path in runner_paths().items()]
    rows = [{"id": r.id, "description": r.description, "max_devices": r.max_devices, "file": str(p)} for r, p in found]

    def render(console: Console) -> None:
        from rich.table import Table

        table = Table("runner", "devices", "what it does", "file", box=None, pad_edge=False)
        for runner, path in found:
            most = "any number" if runner.max_devices is None else str(runner.max_devices)
            table.add_row(runner.id, most, runner.description, str(path))
        console.print(table)

    output = Output(as_json)
    output.document(rows, render)
    output.next_step("txlplan runner show local")


@_group.command()
def show(name: _NAME, as_json: JsonOption = False) -> None:
    """Show a runner: its file as it is, or its fields with --json.

    Example: txlplan runner show torchrun
    """
    from txlplan.config import to_plain
    from txlplan.launcher import get_runner, runner_paths

    runner = get_runner(name)
    path = runner_paths()[name]
    text = path.read_text(encoding="utf-8").rstrip("\n")
    output = Output(as_json)
    output.document(
        {**to_plain(runner), "file": str(path)},
        lambda console: console.print(text, markup=False, highlight=False, soft_wrap=True),
    )
    output.next_step(f"txlplan runner copy {name}")


@_group.command()
def copy(
    name: _NAME,
    new_name: Annotated[str | None, typer.Option("--as", help="Id of the copy; the same id hides the shipped runner.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a runner into your own runners directory, to be edited there.

    Example: txlplan runner copy torchrun --as torchrun-numa
    """
    from txlplan.launcher import copy_runner

    path = copy_runner(name, new_name=new_name)
    output = Output(as_json)
    output.document(
        {"file": str(path)}, lambda console: console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    )
    output.next_step(f"edit {path}, then: txlplan run --runner {new_name or name} …")


def register(app: typer.Typer) -> None:
    """Add the command group to the application."""
    app.add_typer(_group, name="runner")
