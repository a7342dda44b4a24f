"""The application: its command groups, and how every ending becomes an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from txlplan import __version__
from txlplan.cli import (
    _bench,
    _compare,
    _data,
    _demo,
    _doctor,
    _estimate,
    _hardware,
    _model,
    _plan,
    _prices,
    _records,
    _report,
    _run,
    _runner,
    _validate,
)
from txlplan.cli._output import show_error
from txlplan.errors import InputError, TxlplanError

app = typer.Typer(
    name="txlplan",
    help="Plan, run and benchmark Transformer-XL language models on the hardware you have or may buy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"txlplan {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Plan, run and benchmark Transformer-XL language models on the hardware you have or may buy."""


for _group in (
    _hardware,
    _model,
    _data,
    _estimate,
    _plan,
    _compare,
    _prices,
    _run,
    _bench,
    _records,
    _validate,
    _report,
    _runner,
    _doctor,
    _demo,
):
    _group.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code; nothing but a bug prints a traceback."""
    as_json = "--json" in arguments
    try:
        code = app(args=list(arguments), prog_name="txlplan", standalone_mode=False)
    except TxlplanError as error:
        show_error(error, as_json=as_json)
        return error.exit_code
    except typer.TyperException as error:
        usage = InputError(
            error.format_message() or "wrong usage", hint="`txlplan --help` and `txlplan COMMAND --help` show the options"
        )
        show_error(usage, as_json=as_json)
        return usage.exit_code
    except (typer.Abort, KeyboardInterrupt):
        show_error(TxlplanError("interrupted"), as_json=as_json)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (the reader is gone: what is still buffered has nowhere to go)
        return 0
    except Exception as error:
        if os.environ.get("TXLPLAN_DEBUG"):
            traceback.print_exc()
        bug = TxlplanError(
            f"unexpected {type(error).__name__}: {error}",
            hint="this is a bug in txlplan: TXLPLAN_DEBUG=1 shows where it happened",
        )
        show_error(bug, as_json=as_json)
        return bug.exit_code
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `txlplan` command."""
    sys.exit(run(sys.argv[1:]))
