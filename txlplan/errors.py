"""Every error that txlplan raises for its users, and the exit code that each one ends a command with.

    TxlplanError               1  what went wrong that is nobody's input
    ├── InputError             2  a value, an option or a file is wrong (also a ValueError)
    │   ├── ConfigError        2  a TOML file: names the file and the dotted key
    │   ├── DataError          2  a text, token file or data directory: names the file and the offset
    │   ├── CheckpointError    2  a checkpoint that is missing, damaged or of another model
    │   └── RecordError        2  a record or store that cannot be read
    ├── NoPlanFitsError        3  nothing in the planner's space fits
    ├── RunFailedError         4  the worker failed; its record says how
    └── BarMissedError         5  a regression or an accuracy bar was missed

`assert` is for our own mistakes, these are for what a user can mend: the message says what happened and which value
in which file; `hint` says what to do.
"""

from __future__ import annotations


class TxlplanError(Exception):
    """Base of every error shown to a user. `message` says what happened, `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(TxlplanError, ValueError):
    """A value, an option or a file given by the user is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration file is wrong; the message names the file and the dotted key."""


class DataError(InputError):
    """A text, token file or data directory is wrong; the message names the file and, where there is one, the offset."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class RecordError(InputError):
    """A record or a record store cannot be read."""


class NoPlanFitsError(TxlplanError):
    """No plan in the searched space fits the cluster; the message names the term that overflows and by how much."""

    exit_code = 3


class RunFailedError(TxlplanError):
    """A worker failed. Its record holds the outcome and the message."""

    exit_code = 4


class BarMissedError(TxlplanError):
    """A regression or an accuracy bar was missed."""

    exit_code = 5
