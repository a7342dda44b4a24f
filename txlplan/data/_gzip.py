"""Decompress gzip as a stream, knowing at which byte of the compressed file it goes wrong."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from txlplan.errors import DataError

MAGIC = b"\x1f\x8b"
_MOST_AT_ONCE = 1 << 20


def decompress(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The text of all gzip members in `chunks`, at most 1 MiB at a time, however well it was compressed.

    Raises DataError with the offset in the compressed file at which the data stops being gzip or ends too early.
    """
    offset, decoder, inside = 0, None, False
    for chunk in chunks:
        rest = chunk
        while rest:
            if not inside:
                rest = rest.lstrip(b"\0")  # padding between and after members
                if not rest:
                    break
                decoder, inside = zlib.decompressobj(wbits=31), True
            at = offset + len(chunk) - len(rest)
            piece, rest, inside = _step(decoder, rest, name, at)
            yield piece
            while inside and len(piece) == _MOST_AT_ONCE and not rest:
                piece, rest, inside = _step(decoder, b"", name, at)
                yield piece
        offset += len(chunk)
    if inside or decoder is None:
        raise DataError(f"{name}: does not decompress: the gzip data ends too early, at byte {offset}")


def _step(decoder: Any, data: bytes, name: str, at: int) -> tuple[bytes, bytes, bool]:
    """One bounded piece of output, the input that is left, and whether the member goes on."""
    before = decoder.copy()
    try:
        piece = decoder.decompress(data, _MOST_AT_ONCE)
    except zlib.error as error:
        bad = at + _failing_byte(before, data)
        raise DataError(f"{name}: does not decompress: gzip data is damaged at byte {bad} ({error})") from None
    if decoder.eof:
        return piece, decoder.unused_data, False
    return piece, decoder.unconsumed_tail, True


def _failing_byte(decoder: Any, data: bytes) -> int:
    """Index of the first byte of `data` that zlib refuses."""
    for index in range(len(data)):
        try:
            decoder.decompress(data[index : index + 1])
        except zlib.error:
            return index
    return len(data)
