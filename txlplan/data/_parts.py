"""A text cut into parts that are worked on in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from txlplan.data._text import cut_before

PART_BYTES = 8 << 20
"""A constant, so that the tokens do not depend on how many cores there are."""
_LOOK_BACK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `begin` to `end` of a text; ends after a line, where there is one within 64 KiB."""

    path: Path
    begin: int
    end: int


def parts_of(path: Path) -> list[Part]:
    """The parts of a text in order, of about 8 MiB."""
    size = path.stat().st_size
    edges = [0]
    with path.open("rb") as stream:
        while edges[-1] + PART_BYTES < size:
            begin = edges[-1] + PART_BYTES - _LOOK_BACK_BYTES
            stream.seek(begin)
            data = stream.read(_LOOK_BACK_BYTES)
            edges.append(begin + cut_before(data, len(data)))
    edges.append(size)
    return [Part(path, begin, end) for begin, end in pairwise(edges)]
