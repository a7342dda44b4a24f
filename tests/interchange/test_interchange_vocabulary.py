"""Vocabularies of other programs: the forms that are read, and what is wrong with one."""

from __future__ import annotations

import json
import pickle
import socket
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import SYMBOLS

from txlplan.errors import DataError
from txlplan.interchange._vocabulary import read_vocabulary


def test_each_form_gives_the_same_words(tmp_path: Path) -> None:
    numbers = OrderedDict((symbol, number) for number, symbol in enumerate(SYMBOLS))
    (tmp_path / "a.txt").write_text("".join(f"{symbol} {10 - number}\n" for number, symbol in enumerate(SYMBOLS)))
    (tmp_path / "b.json").write_text(json.dumps(dict(reversed(numbers.items()))))
    (tmp_path / "c.json").write_text(json.dumps(SYMBOLS))
    torch.save({"idx2sym": SYMBOLS, "sym2idx": numbers, "counter": Counter(SYMBOLS)}, tmp_path / "d.bin")
    read_vocabulary(str(tmp_path / "a.txt"), tmp_path).save(tmp_path)
    for form in ("a.txt", "b.json", "c.json", "d.bin", "."):
        vocabulary = read_vocabulary(str(tmp_path / form), tmp_path)
        assert vocabulary.kind == "words"
        assert vocabulary.encode("w3 w0\nother w37\n").tolist() == [5, 2, 0, 1, 39, 0]


def test_bytes_need_no_file(tmp_path: Path) -> None:
    assert read_vocabulary("bytes", tmp_path).encode("é").tolist() == [0xC3, 0xA9]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("v.txt", "\n".join([*SYMBOLS, "w3"]), "more than one number: 'w3'"),
        ("v.txt", "<eos>\n<unk>\n\nw1\n", "line 3 is empty"),
        ("v.txt", "<eos>\nw1\n", "has no <unk>"),
        ("v.json", json.dumps({"<eos>": 0, "<unk>": 1, "a": 4, "b": 5}), "2 of these are missing, from 2, 3 on"),
        ("v.json", json.dumps({"<eos>": 0, "<unk>": 1, "a": 1}), "1 of these are missing, from 2 on"),
        ("v.json", json.dumps({"<eos>": "0"}), "neither a list of symbols nor"),
        ("v.json", json.dumps(["<eos>", 3]), "a symbol is not text"),
        ("v.json", "{", "not readable as JSON"),
    ],
)
def test_gaps_and_repetitions_are_named(tmp_path: Path, name: str, content: str, text: str) -> None:
    (tmp_path / name).write_text(content)
    assert text in refused(tmp_path / name)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"<eos>\n\xff\n")
    assert "not valid UTF-8 at byte 6" in refused(tmp_path / "v.txt")


@pytest.mark.parametrize("name", ["v.txt", "v.json"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket, which no user may open: permissions do not keep the superuser out."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(name)
    assert "cannot be read" in refused(tmp_path / name)


class _Harmful:
    """Unpickled, it makes the file `harmed`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["vocab.pkl", "vocab.bin", "cache.pt"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, name: str) -> None:
    harmful = {"idx2sym": SYMBOLS, "more": _Harmful(tmp_path / "harmed")}
    if name == "vocab.pkl":
        (tmp_path / name).write_bytes(pickle.dumps(harmful))
    else:
        torch.save(harmful, tmp_path / name)
    assert "refused" in refused(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_a_pickle_beside_a_model_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "vocab.pkl").touch()
    with pytest.raises(DataError) as raised:
        read_vocabulary(None, tmp_path)
    assert "vocab.txt" in str(raised.value.hint)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_vocabulary(str(path), path.parent)
    assert path.name in raised.value.message
    return raised.value.message
