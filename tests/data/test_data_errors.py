"""What is wrong with an input is reported by name and offset, and leaves nothing behind."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pytest

from txlplan.data import Progress, Settings, open_dataset, prepare
from txlplan.data import _output as output_module
from txlplan.errors import DataError

GOOD = "a good line\n" * 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", b"plain\ncaf\xe9 noir\n", "latin.txt: not valid UTF-8 at byte 9 (0xe9: invalid continuation byte)"),
        ("empty.txt", b"", "empty.txt: empty (ends at byte 0)"),
        ("empty.txt.gz", gzip.compress(b"", mtime=0), "empty.txt.gz: empty (ends at byte 0)"),
        ("plain.gz", b"not gzip", "plain.gz: does not decompress: not gzip at byte 0"),
        (
            "cut.gz",
            gzip.compress(b"text " * 99, mtime=0)[:20],
            "cut.gz: does not decompress: the gzip data ends too early, at byte 20",
        ),
        ("latin.gz", gzip.compress(b"ab\xff", mtime=0), "latin.gz: not valid UTF-8 at byte 2 (0xff: invalid start byte)"),
        ("binary", bytes(range(200, 256)), "binary: not valid UTF-8 at byte 0"),
    ],
)
def test_a_bad_input_is_named_with_the_offset(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(GOOD)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepare([tmp_path / "good.txt", tmp_path / name], tmp_path / "out")
    assert message in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".out") or path.name == "out") == []


def test_an_offset_far_into_a_file_is_exact(tmp_path: Path) -> None:
    data = ("naïve line\n" * 300_000).encode()
    (tmp_path / "long.txt").write_bytes(data + b"x\xff")
    with pytest.raises(DataError, match=rf"long\.txt: not valid UTF-8 at byte {len(data) + 1} "):
        prepare([tmp_path / "long.txt"], tmp_path / "out")


def test_every_bad_input_is_listed_up_to_ten(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.txt").write_bytes(b"" if number % 2 else b"\xff")
    with pytest.raises(DataError) as caught:
        prepare([tmp_path], tmp_path.parent / "out")
    lines = caught.value.message.splitlines()
    assert len(lines) == 11
    assert "00.txt: not valid UTF-8" in lines[0]
    assert "01.txt: empty" in lines[1]
    assert lines[10] == "and 2 more inputs"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text(GOOD)
    (tmp_path / "secret.txt").chmod(0)
    with pytest.raises(DataError, match=r"secret\.txt: cannot be read: Permission denied"):
        prepare([tmp_path / "secret.txt"], tmp_path / "out")


def test_too_little_text_for_a_split_is_said_with_numbers(tmp_path: Path) -> None:
    (tmp_path / "tiny.txt").write_text("a\n")
    with pytest.raises(DataError, match="1 documents with 2 characters leave") as caught:
        prepare([tmp_path / "tiny.txt"], tmp_path / "out")
    assert "--split 1,0" in str(caught.value.hint)


def test_hash_with_too_few_documents_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(GOOD + str(number))
    with pytest.raises(DataError, match=r"2 documents .* leave .*empty") as caught:
        prepare([tmp_path], tmp_path.parent / "out", settings=Settings(assignment="hash"))
    assert "--assignment ordered" in str(caught.value.hint)


def test_a_split_without_a_single_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(GOOD)
    (tmp_path / "valid.txt").write_text("   ")
    with pytest.raises(DataError, match="valid split has 3 bytes of text but no words"):
        prepare(
            [tmp_path / "train.txt"], tmp_path / "out", valid=[tmp_path / "valid.txt"], settings=Settings(vocabulary="words")
        )


def test_what_is_no_data_set_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(GOOD)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("do not lose")
    with pytest.raises(DataError, match="holds files but no data set"):
        prepare([tmp_path / "in.txt"], tmp_path / "mine")
    with pytest.raises(DataError, match="is a file, not a directory"):
        prepare([tmp_path / "in.txt"], tmp_path / "in.txt")
    assert (tmp_path / "mine/thesis.txt").read_text() == "do not lose"


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(GOOD)
    with pytest.raises(DataError, match=r"in\.txt.*(Not a directory|File exists)"):
        prepare([tmp_path / "in.txt"], tmp_path / "in.txt" / "out")


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text(GOOD)

    class Meddling(Progress):
        def begin(self, step: str, total_bytes: int | None) -> None:
            if step == "split":
                path.write_text("short\n" if total_bytes else "")

    with pytest.raises(DataError, match=r"in\.txt: changed while it was read"):
        prepare([path], tmp_path / "out", settings=Settings(ratios=(1.0, 0.0, 0.0)), progress=Meddling())


def test_two_runs_do_not_build_the_same_output_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text(GOOD)
    monkeypatch.setattr(output_module, "_PATIENCE_S", 0.1)
    with output_module.building(tmp_path / "out"), pytest.raises(DataError, match="another process is preparing"):
        prepare([tmp_path / "in.txt"], tmp_path / "out")
    prepare([tmp_path / "in.txt"], tmp_path / "out")
    open_dataset(tmp_path / "out")


def test_standard_input_that_is_no_utf8_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bytes").write_bytes(b"ok\n\xfe")
    with (tmp_path / "bytes").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(DataError, match="-: not valid UTF-8 at byte 3 "):
            prepare(["-"], tmp_path / "out")
