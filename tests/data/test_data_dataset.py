from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from txlplan.data import Settings, bits_per_character, open_dataset, prepare, unigram_entropy_bits_per_character
from txlplan.errors import DataError


@pytest.fixture
def out(corpus: Path, tmp_path: Path) -> Path:
    prepare([corpus], tmp_path / "out", settings=Settings(vocabulary="characters"))
    return tmp_path / "out"


def test_tokens_are_mapped_and_cannot_be_written(out: Path) -> None:
    tokens = open_dataset(out).tokens("train")
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_unigram_entropy_is_that_of_the_counted_characters(out: Path) -> None:
    dataset = open_dataset(out)
    text = (out / "split/train.txt").read_bytes().decode()
    shares = [count / len(text) for count in Counter(text).values()]
    expected = -sum(share * math.log2(share) for share in shares)
    assert unigram_entropy_bits_per_character(dataset, "train") == pytest.approx(expected, rel=1e-12)
    assert dataset.split("train").unigram_entropy_bits_per_token == pytest.approx(expected, rel=1e-12)


def test_bits_per_character_counts_characters_not_tokens(corpus: Path, tmp_path: Path) -> None:
    prepare([corpus], tmp_path / "bytes")
    dataset = open_dataset(tmp_path / "bytes")
    split = dataset.split("valid")
    assert split.tokens > split.characters
    nats = split.unigram_entropy_bits_per_token * math.log(2)
    assert bits_per_character(nats, split) == pytest.approx(unigram_entropy_bits_per_character(dataset, "valid"))


def test_an_unknown_split_is_refused_with_the_nearest(out: Path) -> None:
    with pytest.raises(DataError, match="no split 'vald'") as caught:
        open_dataset(out).tokens("vald")
    assert caught.value.hint == "did you mean 'valid'?"


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory") as caught:
        open_dataset(tmp_path / "none")
    assert "txlplan data prepare" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"holds no manifest\.json"):
        open_dataset(tmp_path)


def test_a_truncated_token_file_is_refused_at_once(out: Path) -> None:
    path = out / "merge/train.tokens"
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(DataError, match=f"truncated: {len(data) - 3} bytes instead of {len(data)}"):
        open_dataset(out)
    path.write_bytes(data + b"x")
    with pytest.raises(DataError, match="longer than it was"):
        open_dataset(out)
    path.unlink()
    with pytest.raises(DataError, match=r"train\.tokens: missing"):
        open_dataset(out)


@pytest.mark.parametrize("name", ["merge/valid.tokens", "split/test.txt"])
def test_an_altered_file_is_found_by_its_checksum(out: Path, name: str) -> None:
    data = bytearray((out / name).read_bytes())
    data[5] ^= 1
    (out / name).write_bytes(data)
    open_dataset(out)
    with pytest.raises(DataError, match=f"{name}: checksum differs"):
        open_dataset(out, verify=True)


def test_another_vocabulary_is_refused(out: Path) -> None:
    path = out / "vocabulary/vocabulary.json"
    raw = json.loads(path.read_text())
    raw["symbols"][1:3] = raw["symbols"][2:0:-1]
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"vocabulary\.json: checksum differs"):
        open_dataset(out)


def test_a_manifest_that_was_edited_is_refused(out: Path) -> None:
    path = out / "manifest.json"
    raw = json.loads(path.read_text())
    for edited, message in (
        (raw | {"format_version": 99}, "format_version 99"),
        (raw | {"colour": "red"}, "unknown key 'colour'"),
        (raw | {"vocabulary": raw["vocabulary"] | {"size": 7}}, "names 7 characters"),
    ):
        path.write_text(json.dumps(edited))
        with pytest.raises(DataError, match=message):
            open_dataset(out)
    path.write_text('{"half": ')
    with pytest.raises(DataError, match="not readable as JSON"):
        open_dataset(out)


def test_a_damaged_count_file_is_refused_by_name(out: Path) -> None:
    (out / "merge/train.counts.npy").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"train\.counts\.npy: cannot be read"):
        open_dataset(out).counts("train")
