"""Compiled code of our own on disk: who finds it there need not load torch's compiler.

A file is named by what it was made from and by what is in it: one that is cut, or was changed, is not loaded. Its time is
that of its last use; one that nobody used for long, since others came in its place, is removed. Who has loaded it keeps it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from txlplan import files, resources

_UNUSED_S = 90 * 24 * 3600.0


def kept_code(name: str, made_from: str) -> ctypes.CDLL | None:
    """The library of that name and origin, loaded; None where there is none, none that is whole, or none that loads here."""
    directory = _directory()
    for path in sorted(directory.glob(f"{name}-{made_from}-*.so")) if directory else []:
        if path.stem.rpartition("-")[2] == _digest(path):
            with suppress(OSError):
                library = ctypes.CDLL(str(path))
                _note_use(path)
                return library
    return None


def keep_code(name: str, made_from: str, library: Path) -> None:
    """Copy a library there, whole or not at all, whoever else does so meanwhile. What cannot be written is done without."""
    if directory := _directory():
        with (
            suppress(OSError),
            files.replacing(directory / f"{name}-{made_from}-{_digest(library)}.so") as temporary,
        ):
            shutil.copyfile(library, temporary)
        _remove_unused(directory)


def _note_use(path: Path) -> None:
    with suppress(OSError):  # (gone meanwhile, or not ours to write)
        os.utime(path)


def _remove_unused(directory: Path) -> None:
    """Also what a process that was killed left half written."""
    with suppress(OSError):
        for path in directory.iterdir():
            with suppress(OSError):  # (another process removes it too, or it is not ours to remove)
                if time.time() - path.stat().st_mtime > _UNUSED_S:
                    path.unlink()


def _directory() -> Path | None:
    """None: this user has no home."""
    try:
        return resources.user_cache() / "own_code"
    except RuntimeError:
        return None


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:  # gone meanwhile, or not ours to read
        return None
