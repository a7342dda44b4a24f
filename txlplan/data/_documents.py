"""Where documents begin in a stream of text blocks. Text is only cut apart, never altered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator

_DRAW_BYTES = 64 << 10
_NEXT_AFTER_BLANK = re.compile(rb"^[^\S\n]*\n(?=[^\n]*\S)", re.MULTILINE)
_ENDS_BLANK = re.compile(rb"(?:^|\n)[^\S\n]*\n\Z")

Boundaries = Callable[[bytes, bool], tuple[list[int], bool]]
"""(block, whether the block before ended with a blank line) → (where documents begin, whether this one ends with one)."""


class DocumentCutter:
    """Cuts blocks into documents; feed it every block of one input in order, then `finish`.

    A line longer than a block (1 MiB) is seen in pieces and matches no rule.
    """

    def __init__(self, rule: str) -> None:
        self._boundaries = _START_FINDERS.get(rule) or _line_finder(rule)
        self._after_blank = False
        self._length = 0
        self._head = b""

    def feed(self, block: bytes) -> Iterator[tuple[int, float]]:
        """(bytes, draw) of the documents that end in this block; the draw is in [0, 1), a hash of the first 64 KiB."""
        starts, self._after_blank = self._boundaries(block, self._after_blank)
        begin = 0
        for start in starts:
            yield from self._close(block[begin:start])
            begin = start
        self._take(block[begin:])

    def finish(self) -> Iterator[tuple[int, float]]:
        """The last document."""
        yield from self._close(b"")

    def _take(self, part: bytes) -> None:
        self._length += len(part)
        if len(self._head) < _DRAW_BYTES:
            self._head += part[: _DRAW_BYTES - len(self._head)]

    def _close(self, part: bytes) -> Iterator[tuple[int, float]]:
        self._take(part)
        if self._length:
            digest = hashlib.blake2b(self._head, digest_size=8).digest()
            yield self._length, (int.from_bytes(digest, "big") >> 11) / 2.0**53
        self._length, self._head = 0, b""


def _file(_block: bytes, _after_blank: bool) -> tuple[list[int], bool]:
    return [], False


def _line(block: bytes, _after_blank: bool) -> tuple[list[int], bool]:
    return [match.end() for match in re.finditer(rb"\n", block)], False


def _blank_line(block: bytes, after_blank: bool) -> tuple[list[int], bool]:
    """A document begins at a line with text that follows a blank line."""
    starts = [0] if after_blank and re.match(rb"[^\n]*\S", block) else []
    starts += [match.end() for match in _NEXT_AFTER_BLANK.finditer(block) if match.end() > 0]
    still_blank = after_blank and not block.strip()
    return starts, bool(_ENDS_BLANK.search(block)) or still_blank


def _line_finder(rule: str) -> Boundaries:
    """A document begins with (`starts:`) or after (`ends:`) each line in which the regular expression is found."""
    kind, _, pattern = rule.partition(":")
    expression = re.compile(pattern, re.MULTILINE)

    def find(block: bytes, _after_blank: bool) -> tuple[list[int], bool]:
        text, at, last, starts = block.decode(), 0, 0, []
        for match in expression.finditer(text):
            begin = text.rfind("\n", 0, match.start()) + 1
            after = text.find("\n", match.start()) + 1 or len(text)
            edge = begin if kind == "starts" else after
            last, at = last + len(text[at:edge].encode()), max(at, edge)
            starts.append(last)
        return starts, False

    return find


_START_FINDERS: dict[str, Boundaries] = {"file": _file, "line": _line, "blank-line": _blank_line}
