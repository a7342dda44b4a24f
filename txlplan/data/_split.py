"""Step 1c, split: write the text of each split, whole and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from txlplan.config._schema import STRICT
from txlplan.data._assign import Run, assign
from txlplan.data._manifest import InputFile
from txlplan.data._progress import Progress
from txlplan.data._scan import Scan, count_characters
from txlplan.data._settings import SPLITS, Settings
from txlplan.data._text import BLOCK_BYTES
from txlplan.errors import DataError

DIRECTORY = "split"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitText:
    """The text of one split: `split/<name>.txt`, UTF-8."""

    __pydantic_config__ = STRICT

    documents: int
    bytes: int
    characters: int
    text: str
    text_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitStep:
    """What the step left: `split/step.json`."""

    __pydantic_config__ = STRICT

    inputs: tuple[InputFile, ...]
    assignment: str
    splits: dict[str, SplitText]


class _TextWriter:
    """One split's text file while it is written."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream, self._digest = path, stream, hashlib.sha256()
        self._last_byte = b"\n"
        self._last_scan: Scan | None = None
        self._documents = self._bytes = self._characters = 0

    def take(self, run: Run, progress: Progress) -> None:
        """Append a run; between two inputs there is a newline, added where the first has none at its end."""
        if run.scan is not self._last_scan and self._last_byte != b"\n":
            self._write(b"\n")
        self._last_scan = run.scan
        self._documents += run.documents
        left = run.end - run.begin
        with run.scan.text.open("rb") as source:
            source.seek(run.begin)
            while left and (block := source.read(min(BLOCK_BYTES, left))):
                self._write(block)
                progress.advance(len(block))
                left -= len(block)
        if left:
            raise _changed(run.scan)

    def _write(self, block: bytes) -> None:
        self._stream.write(block)
        self._digest.update(block)
        self._bytes += len(block)
        self._characters += count_characters(block)
        self._last_byte = block[-1:]

    def result(self) -> SplitText:
        return SplitText(
            documents=self._documents,
            bytes=self._bytes,
            characters=self._characters,
            text=f"{DIRECTORY}/{self._path.name}",
            text_sha256=self._digest.hexdigest(),
        )


def write_splits(scans: Sequence[Scan], directory: Path, settings: Settings, progress: Progress) -> SplitStep:
    """Write `directory`/<split>.txt. Raises DataError when a split that was asked for stays empty."""
    directory.mkdir(parents=True, exist_ok=True)
    assignment, runs = assign(scans, settings)
    writers: dict[str, _TextWriter] = {}
    progress.begin("split", sum(scan.file.text_bytes for scan in scans))
    with ExitStack() as stack:
        for run in runs:
            if run.split not in writers:
                path = directory / f"{run.split}.txt"
                writers[run.split] = _TextWriter(path, stack.enter_context(path.open("wb")))
            writers[run.split].take(run, progress)
    progress.finish()
    _check_unchanged(scans)
    splits = {name: writers[name].result() for name in SPLITS if name in writers}
    _check_wanted(scans, splits, settings)
    return SplitStep(inputs=tuple(scan.file for scan in scans), assignment=assignment, splits=splits)


def _check_wanted(scans: Sequence[Scan], splits: dict[str, SplitText], settings: Settings) -> None:
    if any(scan.file.split for scan in scans):
        return
    empty = [name for name, ratio in zip(SPLITS, settings.ratios, strict=True) if ratio > 0 and name not in splits]
    if empty:
        documents = sum(scan.file.documents for scan in scans)
        characters = sum(scan.file.characters for scan in scans)
        raise DataError(
            f"{documents} documents with {characters} characters leave {' and '.join(empty)} empty",
            hint="give more text, set --assignment ordered, or leave the split out with --split 0.9,0.1 or --split 1,0",
        )


def _check_unchanged(scans: Sequence[Scan]) -> None:
    for scan in scans:
        if str(scan.text) == scan.file.name and scan.text.stat().st_mtime_ns != scan.file.modified_ns:
            raise _changed(scan)


def _changed(scan: Scan) -> DataError:
    return DataError(f"{scan.file.name}: changed while it was read", hint="prepare again when nothing writes to it")
