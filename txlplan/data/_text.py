"""Read text as a stream of blocks: gzip undone, UTF-8 checked, cut where no line or character is torn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from txlplan.data._gzip import MAGIC, decompress
from txlplan.errors import DataError

CHUNK_BYTES = 64 << 10
BLOCK_BYTES = 1 << 20
"""About the size of the blocks that are held in memory at a time."""


def raw_chunks(stream: BinaryIO, seen: Callable[[bytes], None]) -> Iterator[bytes]:
    """The bytes of `stream` as they are; `seen` is told of each chunk."""
    while chunk := stream.read(CHUNK_BYTES):
        seen(chunk)
        yield chunk


def plain_chunks(chunks: Iterator[bytes], name: str) -> tuple[bool, Iterator[bytes]]:
    """Whether the chunks are gzip, and their text as bytes. Raises DataError for a `.gz` that is none."""
    first = next(chunks, b"")
    compressed = first.startswith(MAGIC)
    if name.endswith(".gz") and first and not compressed:
        raise DataError(f"{name}: does not decompress: not gzip at byte 0")
    joined = _chain(first, chunks)
    return compressed, decompress(joined, name) if compressed else joined


def text_blocks(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Valid UTF-8 in blocks of at least 1 MiB that end after a line, or after a character where a line is longer.

    Raises DataError with the byte offset (in the decompressed text) of the first byte that is not UTF-8.
    """
    offset, held = 0, bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) < BLOCK_BYTES:
            continue
        end = held.rfind(b"\n") + 1 or character_start(held, len(held))
        block = bytes(held[:end])
        check_utf8(block, name, offset)
        yield block
        offset += end
        del held[:end]
    if held:
        check_utf8(bytes(held), name, offset)
        yield bytes(held)


def check_utf8(block: bytes, name: str, offset: int) -> None:
    """Raise DataError, counting bytes from `offset`, unless `block` is UTF-8."""
    if block.isascii():
        return
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        at = offset + error.start
        wrong = f"0x{block[error.start]:02x}"
        raise DataError(
            f"{name}: not valid UTF-8 at byte {at} ({wrong}: {error.reason})",
            hint="convert the file, for example with `iconv -f LATIN1 -t UTF-8`",
        ) from None


def character_start(data: bytes | bytearray, end: int) -> int:
    """The largest index ≤ `end` at which no UTF-8 character is cut (of the last one, up to 4 bytes may be missing)."""
    for index in range(end - 1, max(end - 5, -1), -1):
        if data[index] & 0xC0 != 0x80:
            lead = data[index]
            width = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return end if index + width <= end else index
    return end


def file_blocks(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """Bytes `begin` to `end` of a UTF-8 file in blocks of about 1 MiB, each cut by `cut_before`."""
    with path.open("rb") as stream:
        stream.seek(begin)
        left, held = end - begin, b""
        while left or held:
            held += (got := stream.read(min(BLOCK_BYTES, left)))
            if left and not got:
                raise DataError(f"{path}: ends at byte {end - left}, before byte {end}")
            left -= len(got)
            cut = cut_before(held, len(held)) if left else len(held)
            yield held[:cut]
            held = held[cut:]


def cut_before(data: bytes, end: int) -> int:
    """Where to cut `data` at or before `end`: after a newline, else before a space, else between two characters."""
    return data.rfind(b"\n", 0, end) + 1 or max(data.rfind(b" ", 0, end), 0) or character_start(data, end)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
