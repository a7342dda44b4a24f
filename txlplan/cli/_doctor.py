"""`txlplan doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from txlplan.cli._output import JsonOption, Output

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Check that everything txlplan needs is here, and say what to do where it is not.

    Example: txlplan doctor --json
    """
    from txlplan.config import to_plain
    from txlplan.detection import check_up

    output = Output(as_json)
    findings = check_up()
    warnings = [each for each in findings if each.state == "warn"]

    def render(console: Console) -> None:
        width = max(len(each.name) for each in findings)
        for each in findings:
            advice = f"\n      {'':{width}}  → {each.advice}" if each.advice else ""
            style = "yellow" if each.advice else None
            line = f"{each.state:<4}  {each.name:<{width}}  {each.detail}{advice}"
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    output.document({"ok": not warnings, "findings": [to_plain(each) for each in findings]}, render)
    output.next_step("txlplan hardware probe" if any(each.name == "probe" for each in warnings) else "txlplan demo")
