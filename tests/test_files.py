"""A file is replaced whole or not at all; a line is whole or cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from txlplan import files


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "one")
    files.write_text(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail_half_way() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["a.txt"]


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"", b""),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntw", b"one\n"),
        (b"on", b""),
        (b"one\n" + b"x" * 200_000, b"one\n"),
        (b"x" * 200_000 + b"\n" + b"x" * 65_535, b"x" * 200_000 + b"\n"),
    ],
)
def test_an_unfinished_line_is_cut_off(tmp_path: Path, content: bytes, whole: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    assert files.whole_lines_bytes(path) == len(whole)
    files.cut_unfinished_line(path)
    assert path.read_bytes() == whole


def test_a_missing_file_has_no_line(tmp_path: Path) -> None:
    files.cut_unfinished_line(tmp_path / "none")
    assert files.whole_lines_bytes(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()
