from __future__ import annotations

import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.data._gzip import decompress
from txlplan.errors import DataError


def chunked(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 64), st.integers(0, 5))
def test_members_in_any_chunks_with_padding_give_the_text(members: list[bytes], size: int, padding: int) -> None:
    data = b"".join(gzip.compress(member) for member in members) + b"\0" * padding
    assert b"".join(decompress(chunked(data, size), "x")) == b"".join(members)


def test_output_comes_in_bounded_pieces_however_well_it_was_compressed() -> None:
    data = gzip.compress(b"a" * (9 << 20))
    assert len(data) < 64 << 10
    pieces = list(decompress([data], "x"))
    assert sum(map(len, pieces)) == 9 << 20
    assert max(map(len, pieces)) <= 1 << 20


def test_truncation_is_reported_at_the_end_of_the_file() -> None:
    data = gzip.compress(random.Random(1).randbytes(5000))
    for length in (11, len(data) // 2, len(data) - 1):
        with pytest.raises(DataError, match=f"x.gz: does not decompress.* at byte {length}$"):
            list(decompress(chunked(data[:length], 100), "x.gz"))


@pytest.mark.parametrize("size", [7, 1000, 1 << 16])
def test_damage_is_reported_at_its_offset(size: int) -> None:
    data = bytearray(gzip.compress(b"some text " * 100))
    data[-8] ^= 0xFF  # the first byte of the CRC: known to be wrong when its four bytes were read
    with pytest.raises(DataError, match=f"damaged at byte {len(data) - 5} .*incorrect data check"):
        list(decompress(chunked(bytes(data), size), "x.gz"))


def test_garbage_after_a_member_is_reported_where_it_is() -> None:
    data = gzip.compress(b"text")
    with pytest.raises(DataError, match=f"damaged at byte {len(data) + 1} "):
        list(decompress([data + b"garbage"], "x.gz"))
