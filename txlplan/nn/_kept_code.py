"""Compiled code of our own on disk: who finds it there need not load torch's compiler.

A file is named by what it was made from and by what is in it: one that is cut, or was changed, is not loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from txlplan import files, resources


def kept_code(name: str, made_from: str) -> ctypes.CDLL | None:
    """The library of that name and origin, loaded; None where there is none, none that is whole, or none that loads here."""
    directory = _directory()
    for path in sorted(directory.glob(f"{name}-{made_from}-*.so")) if directory else []:
        if path.stem.rpartition("-")[2] == _digest(path):
            with suppress(OSError):
                return ctypes.CDLL(str(path))
    return None


def keep_code(name: str, made_from: str, library: Path) -> None:
    """Copy a library there, whole or not at all, whoever else does so meanwhile. What cannot be written is done without."""
    if directory := _directory():
        with (
            suppress(OSError),
            files.replacing(directory / f"{name}-{made_from}-{_digest(library)}.so") as temporary,
        ):
            shutil.copyfile(library, temporary)


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
