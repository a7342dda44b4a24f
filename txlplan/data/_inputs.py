"""Which files are read: paths, directories, globs and standard input become an ordered list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from txlplan.errors import DataError

STDIN = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input as named: a file, or standard input. `split` is set when the user gave the file for that split."""

    name: str
    """Absolute path, or `-`."""
    split: str | None = None


def find_sources(inputs: Sequence[str | Path], valid: Sequence[str | Path], test: Sequence[str | Path]) -> list[Source]:
    """The sources in reading order: as given, directories and globs sorted by path, each file once.

    With `valid` or `test` files, `inputs` are the train split. Raises DataError where nothing is found.
    """
    given = bool(valid or test)
    groups = (("train" if given else None, inputs), ("valid", valid), ("test", test))
    sources: dict[str, Source] = {}
    for split, entries in groups:
        for name in _expand(entries):
            known = sources.setdefault(name, Source(name=name, split=split))
            if known.split != split:
                raise DataError(f"{name}: given for {known.split} and for {split}", hint="give each file to one split")
    if not any(source.split in (None, "train") for source in sources.values()):
        raise DataError("no input files", hint="name files, directories, globs, or - for standard input")
    return list(sources.values())


def _expand(entries: Iterable[str | Path]) -> list[str]:
    return [name for entry in entries for name in _files(str(entry))]


def _files(entry: str) -> list[str]:
    if entry == STDIN:
        return [STDIN]
    path = Path(os.path.expanduser(entry))  # noqa: PTH111  (a glob is not yet a path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
        if not files:
            raise DataError(f"{entry}: no files in this directory")
        return [str(file.absolute()) for file in files]
    if path.exists():
        return [str(path.absolute())]
    if not glob.has_magic(entry):
        raise DataError(f"{entry}: no such file or directory")
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  (absolute patterns too)
    if not any(match.is_file() for match in matches):
        raise DataError(f"{entry}: no files match", hint="quote the pattern, and check it with ls")
    return [str(match.absolute()) for match in matches if match.is_file()]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
