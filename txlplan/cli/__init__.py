"""The command line. `main` is the entry point; each command group is one file."""

from txlplan.cli._app import main, run

__all__ = ["main", "run"]
