"""A file is replaced whole or not at all."""

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
