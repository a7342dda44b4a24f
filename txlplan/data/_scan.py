"""Step 1a, read: check every input and find its documents."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from txlplan.data._documents import DocumentCutter
from txlplan.data._inputs import STDIN, Source
from txlplan.data._manifest import InputFile
from txlplan.data._parallel import Advance, run
from txlplan.data._progress import Progress
from txlplan.data._text import plain_chunks, raw_chunks, text_blocks
from txlplan.errors import DataError

DOCUMENT = np.dtype([("bytes", "<i8"), ("draw", "<f8")])
"""A row of a document table: length, and the hash in [0, 1) that decides its split."""

_MOST_PROBLEMS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """One input that was read: where its plain text lies, and the table of its documents."""

    file: InputFile
    text: Path
    """The input itself, or a decompressed copy."""
    table: Path
    """File of DOCUMENT rows in order."""


@dataclass(frozen=True, slots=True)
class _Task:
    source: Source
    number: int
    directory: Path
    rule: str


def scan(sources: list[Source], directory: Path, rule: str, processes: int, progress: Progress) -> list[Scan]:
    """Read every source once and write its document table (and its text, where it was compressed) under `directory`.

    Raises DataError that lists what is wrong with which input: not UTF-8, empty, damaged gzip, not readable.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sizes = [None if source.name == STDIN else Path(source.name).stat().st_size for source in sources]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    tasks = [_Task(source, number, directory, rule) for number, source in enumerate(sources)]
    progress.begin("read", total)
    results = list(run(_scan_or_problem, tasks, total or 0, processes, progress))
    progress.finish()
    problems = [result for result in results if isinstance(result, DataError)]
    if problems:
        raise _joined(problems)
    return [result for result in results if isinstance(result, Scan)]


def _joined(problems: list[DataError]) -> DataError:
    lines = [problem.message for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        lines.append(f"and {len(problems) - _MOST_PROBLEMS} more inputs")
    return DataError("\n".join(lines), hint=next((problem.hint for problem in problems if problem.hint), None))


def _scan_or_problem(task: _Task, advance: Advance) -> Scan | DataError:
    try:
        return _scan(task, advance)
    except DataError as error:
        return error
    except OSError as error:
        return DataError(f"{task.source.name}: cannot be read: {error.strerror}")


def _scan(task: _Task, advance: Advance) -> Scan:
    name, size, text_bytes, characters, documents = task.source.name, 0, 0, 0, 0
    digest = hashlib.sha256()

    def seen(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)
        digest.update(chunk)
        advance(len(chunk))

    table = task.directory / f"{task.number:06d}.documents"
    copy = task.directory / f"{task.number:06d}.txt"
    with _opened(name) as stream, table.open("wb") as rows:
        modified_ns = None if name == STDIN else Path(name).stat().st_mtime_ns
        compressed, chunks = plain_chunks(raw_chunks(stream, seen), name)
        copied = compressed or name == STDIN
        cutter = DocumentCutter(task.rule)
        with _writer(copy if copied else None) as write:
            for block in text_blocks(chunks, name):
                write(block)
                text_bytes, characters = text_bytes + len(block), characters + count_characters(block)
                documents += _write_rows(rows, list(cutter.feed(block)))
        documents += _write_rows(rows, list(cutter.finish()))
    if not text_bytes:
        raise DataError(f"{name}: empty (ends at byte 0)", hint="remove it from the inputs")
    file = InputFile(
        name=name,
        split=task.source.split,
        gzip=compressed,
        size_bytes=size,
        modified_ns=modified_ns,
        sha256=digest.hexdigest(),
        text_bytes=text_bytes,
        characters=characters,
        documents=documents,
    )
    return Scan(file=file, text=copy if copied else Path(name), table=table)


def count_characters(block: bytes) -> int:
    """Unicode characters of UTF-8: bytes that are no continuation bytes."""
    if block.isascii():
        return len(block)
    return len(block) - int(np.count_nonzero((np.frombuffer(block, np.uint8) & 0xC0) == 0x80))


def _write_rows(stream: BinaryIO, rows: list[tuple[int, float]]) -> int:
    if rows:
        stream.write(np.array(rows, DOCUMENT).tobytes())
    return len(rows)


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STDIN:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as stream:
        yield stream


@contextmanager
def _writer(path: Path | None) -> Iterator[Callable[[bytes], int]]:
    """What takes each block: a file, or nothing."""
    if path is None:
        yield len
        return
    with path.open("wb") as stream:
        yield stream.write
