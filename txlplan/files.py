"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed.

Files of lines grow instead, by one process at a time; there a line is whole once its newline is there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from txlplan.errors import InputError

_BLOCK_BYTES = 65_536
"""Read at once, from the end, to find the last newline."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it and rename it onto `path`, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the whole of `path` by `text` (UTF-8), atomically. Raises InputError where it cannot be written."""
    if not path.name or path.is_dir():
        raise InputError(f"{str(path)!r} cannot be written: it must be the path of a file")
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def unwritable(directory: Path) -> str | None:
    """Why nothing can be made in the directory, or, while it is not there, in the nearest one above it; None: it can."""
    there = next(each for each in (directory, *directory.parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryDirectory(dir=there):
            return None
    except OSError as error:
        return f"nothing can be made in {there} ({error.strerror})"


def whole_lines_bytes(path: Path) -> int:
    """Size of the file up to its last newline: without the unfinished line that a killed process leaves. Missing: 0."""
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK_BYTES)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def cut_unfinished_line(path: Path) -> None:
    """Cut off an unfinished last line, so that what is appended next does not become the end of it."""
    whole_bytes = whole_lines_bytes(path)
    if path.exists() and path.stat().st_size > whole_bytes:
        os.truncate(path, whole_bytes)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
