"""The output directory: built hidden beside its place, locked against a second writer, then renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from txlplan.data._manifest import FILE_NAME
from txlplan.errors import DataError

_PATIENCE_S = 5.0
"""How long to wait for the workers of a killed run to notice and end."""


def check_place(output: Path) -> None:
    """Raise DataError where a data set may not be written."""
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file, not a directory", hint="choose another --output")
    if output.is_dir() and not (output / FILE_NAME).exists() and any(output.iterdir()):
        raise DataError(
            f"{output}: holds files but no data set, so it is not overwritten", hint="choose another --output, or empty it"
        )


@contextmanager
def building(output: Path) -> Iterator[Path]:
    """The hidden directory in which `output` is built; whatever an interrupted run left is in it.

    Raises DataError when another process builds the same output.
    """
    partial = _beside(output, "partial")
    descriptor = _locked(partial)
    try:
        yield partial
    except DataError:
        shutil.rmtree(partial, ignore_errors=True)  # what is wrong with the inputs is not mended by going on
        raise
    finally:
        os.close(descriptor)


def move_into_place(partial: Path, output: Path) -> None:
    """Rename the finished directory onto `output`; a former data set makes room and is removed."""
    for path in sorted(partial.rglob("*"), reverse=True):
        _flush(path)
    _flush(partial)
    old = _beside(output, "old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    _flush(output.parent)
    shutil.rmtree(old, ignore_errors=True)


def finish_interrupted_move(output: Path) -> None:
    """A killed run left the former data set aside: put it back where the new one is not in its place yet, else remove it."""
    old = _beside(output, "old")
    if old.exists() and not output.exists():
        old.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def empty(directory: Path) -> None:
    """Remove everything in `directory`."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_unfinished(directory: Path) -> None:
    """Remove the files that a killed process was writing: they were not yet renamed into their places."""
    for path in directory.rglob(".*.partial"):
        path.unlink()


def _beside(output: Path, what: str) -> Path:
    return output.with_name(f".{output.name}.{what}")


def _locked(directory: Path) -> int:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if directory.exists() and os.path.samestat(os.fstat(descriptor), directory.stat()):
                return descriptor  # else another process finished and renamed it meanwhile
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise DataError(f"{directory}: another process is preparing this data set", hint="wait for it") from None
        os.close(descriptor)
        time.sleep(0.1)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
