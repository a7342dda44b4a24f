from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.data import _text
from txlplan.data._text import character_start, cut_before, file_blocks, text_blocks
from txlplan.errors import DataError

TEXT = st.text(alphabet=st.sampled_from("ab \n漢é🙂"), max_size=200)


def chunked(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(TEXT, st.integers(1, 20), st.integers(1, 40))
def test_blocks_join_to_the_text_and_each_is_valid(text: str, chunk: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_text, "BLOCK_BYTES", block)
        blocks = list(text_blocks(chunked(text.encode(), chunk), "x"))
    assert b"".join(blocks) == text.encode()
    assert "".join(piece.decode() for piece in blocks) == text


@given(TEXT, st.integers(0, 200), st.sampled_from([b"\xff", b"\xc3(", b"\x80", b"\xed\xa0\x80"]), st.integers(1, 20))
def test_the_offset_of_what_is_no_utf8_is_exact(text: str, where: int, wrong: bytes, chunk: int) -> None:
    prefix = text[:where].encode()
    data = prefix + wrong + text[where:].encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_text, "BLOCK_BYTES", 16)
        with pytest.raises(DataError, match=f"x: not valid UTF-8 at byte {len(prefix)} ") as caught:
            list(text_blocks(chunked(data, chunk), "x"))
    assert "iconv" in str(caught.value.hint)


def test_a_text_that_ends_inside_a_character_is_refused() -> None:
    with pytest.raises(DataError, match=r"at byte 1 .*unexpected end"):
        list(text_blocks(["aé".encode()[:2]], "x"))


@given(TEXT, st.integers(1, 200))
def test_cuts_fall_between_characters_and_after_newlines(text: str, end: int) -> None:
    data = text.encode()[:end]
    cut = cut_before(data, len(data))
    assert 0 <= cut <= len(data)
    data[:cut].decode("utf-8")
    if b"\n" in data:
        assert data[cut - 1 : cut] == b"\n"


@given(st.text(alphabet="aé漢🙂", min_size=1), st.integers(1, 100))
def test_character_start_tears_no_character(text: str, end: int) -> None:
    data = text.encode()[:end]
    start = character_start(data, len(data))
    data[:start].decode("utf-8")
    assert len(data) - start < 4


def test_a_range_of_a_file_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_text, "BLOCK_BYTES", 64)
    data = ("word " * 30 + "\n" + "漢" * 100).encode()
    (tmp_path / "x").write_bytes(data)
    blocks = list(file_blocks(tmp_path / "x", 10, len(data)))
    assert b"".join(blocks) == data[10:]
    assert max(map(len, blocks)) < 200


def test_a_file_that_shrank_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"short")
    with pytest.raises(DataError, match="ends at byte 5, before byte 9"):
        list(file_blocks(tmp_path / "x", 0, 9))
