"""Texts to prepare, and ways to look at what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from txlplan.data import Dataset

SENTENCES = (
    "The cat sat on the mat.\n",
    "Über Öl – naïve café, 漢字 and 🙂!\n",
    "\n",
    "  two  spaces,\ttab\r\n",
    "Numbers: 1, 22, 333.\n",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A directory of 40 small texts, each with characters of 1 to 4 bytes; every third has no newline at its end."""
    directory = tmp_path / "corpus"
    directory.mkdir()
    for number in range(40):
        text = f"Document {number}\n" + "".join(SENTENCES[(number + i) % len(SENTENCES)] for i in range(number % 7 + 3))
        (directory / f"{number:03d}.txt").write_bytes((text.rstrip("\n") if number % 3 == 0 else text).encode())
    return directory


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    """Every file under a directory → sha256 of its content."""

    def listed(directory: Path) -> dict[str, str]:
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return listed


@pytest.fixture
def text_of() -> Callable[[Dataset, str], str]:
    """The text of a split, newlines as they are."""

    def read(dataset: Dataset, split: str) -> str:
        return (dataset.directory / dataset.split(split).text).read_bytes().decode("utf-8")

    return read
