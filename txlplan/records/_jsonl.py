"""Records as JSON Lines: one document a line, nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from txlplan import files
from txlplan.errors import RecordError
from txlplan.records._document import from_line, to_line
from txlplan.records._record import Record

Report = Callable[[str], None]
"""Takes what is wrong with one line of a file that is read."""

_SHOWN = 10
_EXPORT = "give the path of a file that `txlplan records export` wrote"


def export_jsonl(records: Iterable[Record], path: Path) -> int:
    """Write records to a file, atomically; gives their number."""
    lines = [to_line(record) for record in records]
    files.write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def import_jsonl(path: Path, *, on_corrupt: Report | None = None) -> list[Record]:
    """Read records from a file.

    A line that is no record is told to `on_corrupt`, and the others are read; where that is None, RecordError lists all
    such lines by file and line number.
    """
    numbered = enumerate(_lines(path), start=1)
    return collected(((f"{path}:{number}", line) for number, line in numbered if line.strip()), _from_bytes, on_corrupt)


def collected(
    entries: Iterable[tuple[str, bytes]], read: Callable[[bytes, str], Record], on_corrupt: Report | None
) -> list[Record]:
    """The records of `entries` (place, content); each that cannot be read goes to `on_corrupt`, or all into one RecordError."""
    records, problems = [], []
    for where, content in entries:
        try:
            records.append(read(content, where))
        except RecordError as error:
            problems.append(error)
            if on_corrupt:
                on_corrupt(error.message)
    if problems and not on_corrupt:
        shown = [error.message for error in problems[:_SHOWN]]
        more = [f"… and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise RecordError(
            "\n".join(shown + more), hint=problems[0].hint or "nothing was imported; --skip-corrupt takes the rest"
        )
    return records


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises RecordError that names it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file", hint=_EXPORT) from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}", hint=_EXPORT) from None


def _lines(path: Path) -> Iterator[bytes]:
    yield from content_of(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")


def _from_bytes(line: bytes, where: str) -> Record:
    try:
        return from_line(line.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise RecordError(f"{where}: not UTF-8 at byte {error.start} of the line") from None
