"""The application: its command groups, and how every ending becomes an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import typer

from txlplan import __version__, resources
from txlplan.cli._output import Output, Stopped, show_error
from txlplan.errors import InputError, TxlplanError

_HELP = "Plan, run and benchmark Transformer-XL language models on the hardware you have or may buy."
_LEFT = "the same command starts again (a run whose directory is there: with --resume); files are written whole or not at all"
_OPTIONS = "`txlplan --help` and `txlplan COMMAND --help` show the options"
_COMMANDS = (
    "hardware",
    "model",
    "data",
    "estimate",
    "plan",
    "compare",
    "prices",
    "run",
    "bench",
    "records",
    "validate",
    "calibrate",
    "report",
    "runner",
    "doctor",
    "demo",
)
"""Commands and groups of commands, each registered by the module of its name."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"txlplan {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options of the program itself."""


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application with the one command that `arguments` start with, and with all where they start with none.

    A command costs its imports and the parsing of its options: help and errors need them all, nothing else does.
    """
    app = typer.Typer(name="txlplan", help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(help=_HELP)(_root)
    for name in arguments[:1] if arguments and arguments[0] in _COMMANDS else _COMMANDS:
        import_module(f"txlplan.cli._{name}").register(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code; nothing but a bug prints a traceback."""
    as_json = "--json" in arguments
    _say_missing_directories()
    try:
        code = application(arguments)(args=list(arguments), prog_name="txlplan", standalone_mode=False)
    except TxlplanError as error:
        show_error(error, as_json=as_json)
        return error.exit_code
    except Stopped as stopped:
        return stopped.exit_code
    except typer.TyperException as error:
        if message := _message(error):  # (else a group without a command: its help has been printed)
            show_error(InputError(message, hint=_OPTIONS), as_json=as_json)
        return InputError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = Stopped.exit_code
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
    if code == Stopped.exit_code:  # (what typer makes of a KeyboardInterrupt)
        show_error(TxlplanError(f"{_named(arguments)} was interrupted before it was done", hint=_LEFT), as_json=as_json)
    return code if isinstance(code, int) else 0


def _say_missing_directories() -> None:
    for variable, directory in resources.missing():
        Output().say(f"note: {variable} names {directory}, which is no directory: nothing is read from there")


def _message(error: typer.TyperException) -> str:
    """Without the words with which pydantic, by which typer checks values, introduces what a check says."""
    return error.format_message().replace(": Value error, ", ": ", 1)


def _named(arguments: Sequence[str]) -> str:
    return f"txlplan {arguments[0]}" if arguments and arguments[0] in _COMMANDS else "txlplan"


def main() -> None:
    """Entry point of the `txlplan` command."""
    sys.exit(run(sys.argv[1:]))
