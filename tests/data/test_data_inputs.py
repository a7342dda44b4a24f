from __future__ import annotations

from pathlib import Path

import pytest

from txlplan.data._inputs import find_sources
from txlplan.errors import DataError


def names(root: Path, *inputs: str | Path) -> list[str]:
    return [Path(source.name).relative_to(root).as_posix() for source in find_sources(inputs, (), ())]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", ".hidden", "deep/.git/x", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\n")
    return tmp_path


def test_a_directory_gives_its_files_sorted_without_hidden_ones(root: Path) -> None:
    assert names(root, root) == ["a.txt", "b.txt", "deep/er/c.txt", "odd[1].txt"]


def test_globs_are_sorted_and_may_cross_directories(root: Path) -> None:
    assert names(root, root / "*.txt") == ["a.txt", "b.txt", "odd[1].txt"]
    assert names(root, f"{root}/**/c.txt") == ["deep/er/c.txt"]


def test_the_order_given_is_kept_and_each_file_comes_once(root: Path) -> None:
    assert names(root, root / "b.txt", root) == ["b.txt", "a.txt", "deep/er/c.txt", "odd[1].txt"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(root: Path) -> None:
    assert names(root, root / "odd[1].txt") == ["odd[1].txt"]


def test_relative_paths_are_made_absolute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert names(root, "a.txt", "*b.txt") == ["a.txt", "b.txt"]


@pytest.mark.parametrize(("entry", "message"), [("none.txt", "no such file"), ("*.none", "no files match")])
def test_what_is_not_there_is_named(root: Path, entry: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_sources([root / entry], (), ())
    assert entry in caught.value.message


def test_an_empty_directory_and_no_inputs_are_errors(root: Path) -> None:
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="no files in this directory"):
        find_sources([root / "empty"], (), ())
    with pytest.raises(DataError, match="no input files"):
        find_sources([], [root / "a.txt"], ())


def test_one_file_cannot_be_in_two_splits(root: Path) -> None:
    with pytest.raises(DataError, match="for train and for valid"):
        find_sources([root], [root / "a.txt"], ())


def test_given_splits_are_kept(root: Path) -> None:
    sources = find_sources([root / "a.txt"], [root / "b.txt"], [])
    assert [source.split for source in sources] == ["train", "valid"]
