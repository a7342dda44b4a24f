"""The one object through which commands speak: data on stdout, talk on stderr, `--json` one document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.errors import TxlplanError

if TYPE_CHECKING:
    from rich.console import Console


class Stopped(Exception):  # noqa: N818  (no error: it ended as asked)
    """A person stopped what went on, and has been told so: the exit code is that of a program that SIGINT ended."""

    exit_code = 130


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
"""Every command takes `as_json: JsonOption = False`."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command prints. `Output(as_json)`, then `document` once, `next_step` once; `say` at any time."""

    as_json: bool = False

    def document(self, data: Any, render: Callable[[Console], None]) -> None:
        """Print the command's result: `data` (plain values) as JSON, or what `render` prints on a console."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
        else:
            render(console(sys.stdout))

    def result(self, data: dict[str, Any], render: Callable[[Console], None], error: TxlplanError | None) -> None:
        """The same for a result that may be an error too: complete in either form, then the error's exit code."""
        self.document(data if error is None else data | {"error": _plain(error)}, render)
        if error is None:
            return
        if self.as_json:
            raise typer.Exit(error.exit_code)
        raise error

    def say(self, text: str) -> None:
        """Tell something that is no result (progress, a note), on stderr; rich markup is not interpreted."""
        console(sys.stderr).print(text, markup=False, highlight=False, soft_wrap=True)

    def next_step(self, command: str) -> None:
        """Name the useful next command, on stderr."""
        if not self.as_json:
            console(sys.stderr).print(f"next: {command}", markup=False, highlight=False, style="dim", soft_wrap=True)


def console(stream: Any) -> Console:
    """A rich console: styled and fitted on a terminal, plain untruncated text in a pipe."""
    from rich.console import Console

    if stream.isatty():
        return Console(file=stream)
    return Console(file=stream, width=10_000, no_color=True, highlight=False, soft_wrap=True)


def _plain(error: TxlplanError) -> dict[str, Any]:
    return {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def show_error(error: TxlplanError, *, as_json: bool) -> None:
    """Print an error for a user; as a JSON document on stdout when the command was to print JSON."""
    if as_json:
        sys.stdout.write(json.dumps({"error": _plain(error)}, ensure_ascii=False, indent=2) + "\n")
        return
    stderr = console(sys.stderr)
    stderr.print(f"error: {error.message}", markup=False, highlight=False, style="red", soft_wrap=True)
    if error.hint:
        stderr.print(f"hint: {error.hint}", markup=False, highlight=False, soft_wrap=True)
