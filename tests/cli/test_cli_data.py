from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"Line {number} of a naïve text.\n" for number in range(2000)))
    return path


def test_prepare_then_inspect(txlplan: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = txlplan("data", "prepare", text, "--output", out)
    assert made.exit_code == 0
    assert "bytes, 256 symbols" in made.stdout
    assert "/s" in made.stderr  # bytes per second
    assert f"next: txlplan data inspect {out} --verify" in made.stderr
    seen = txlplan("data", "inspect", out, "--verify")
    assert seen.exit_code == 0
    assert "checksums of 7 files are right" in seen.stderr
    for word in ("train", "valid", "test", "characters", "tokens", "bits/char", "most frequent"):
        assert word in seen.stdout


def test_json_of_both_is_one_document(txlplan: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = txlplan("data", "prepare", text, "--output", out, "--vocabulary", "words", "--json").json
    assert made["unchanged"] is False
    lines = (out / "split/train.txt").read_text().count("\n")
    assert made["vocabulary"] == {"kind": "words", "size": lines + 7, "dtype": "uint16"}
    assert txlplan("data", "prepare", text, "--output", out, "--vocabulary", "words", "--json").json["unchanged"] is True
    seen = txlplan("data", "inspect", out, "--json", "--verify", "--top", 3).json
    assert seen["splits"] == made["splits"]
    assert [token["token"] for token in seen["most_frequent_tokens"]] == ["<eos>", "Line", "a"]
    assert seen["most_frequent_tokens"][0]["count"] == lines
    assert len(seen["verified_files"]) == 7
    assert seen["manifest"]["settings"]["vocabulary"] == "words"


def test_run_again_it_says_that_nothing_is_done(txlplan: Any, text: Path, tmp_path: Path) -> None:
    txlplan("data", "prepare", text, "-o", tmp_path / "out")
    again = txlplan("data", "prepare", text, "-o", tmp_path / "out")
    assert again.exit_code == 0
    assert "nothing done" in again.stderr


def test_the_options_reach_the_manifest(txlplan: Any, text: Path, tmp_path: Path) -> None:
    options = "--vocabulary bpe --vocabulary-size 280 --special <pad> --split 0.8,0.2 --documents line --assignment hash"
    txlplan("data", "prepare", text, "-o", tmp_path / "out", "--processes", 1, *options.split())
    manifest = txlplan("data", "inspect", tmp_path / "out", "--json").json["manifest"]
    assert manifest["settings"] == {
        "vocabulary": "bpe",
        "vocabulary_size": 280,
        "min_count": 1,
        "special_symbols": ["<pad>"],
        "ratios": [0.8, 0.2, 0.0],
        "documents": "line",
        "assignment": "hash",
        "vocabulary_of": None,
    }
    assert list(manifest["splits"]) == ["train", "valid"]
    assert sum(split["documents"] for split in manifest["splits"].values()) == 2000


def test_given_split_files(txlplan: Any, text: Path, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("Held out.\n")
    held = tmp_path / "held.txt"
    made = txlplan("data", "prepare", text, "--valid", held, "-o", tmp_path / "out", "--json").json
    assert made["splits"]["valid"]["characters"] == 10
    refused = txlplan("data", "prepare", text, "--valid", held, "--split", "0.9,0.1", "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert "--split has no effect" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "none.txt: no such file"),
        (["TEXT", "--split", "0.9,0.9"], "the sum 1"),
        (["TEXT", "--vocabulary", "char"], "vocabulary = 'char' is not known"),
        (["TEXT", "--min-count", "3"], "no effect"),
        (["TEXT", "--documents", "starts:("], "not a regular expression"),
        (["BAD"], "not valid UTF-8 at byte 3"),
    ],
)
def test_bad_input_is_an_error_of_one_document(
    arguments: list[str], message: str, txlplan: Any, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"abc\xff")
    named = {"TEXT": str(text), "BAD": str(tmp_path / "bad.txt")}
    given = [named.get(argument, argument) for argument in arguments]
    plain = txlplan("data", "prepare", *given, "-o", tmp_path / "out")
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert f"error: {message}" in plain.stderr or message in plain.stderr
    assert "Traceback" not in plain.stderr
    as_json = txlplan("data", "prepare", *given, "-o", tmp_path / "out", "--json")
    assert as_json.exit_code == 2
    assert message in as_json.json["error"]["message"]


def test_a_truncated_token_file_is_an_error_of_one_document(txlplan: Any, text: Path, tmp_path: Path) -> None:
    txlplan("data", "prepare", text, "-o", tmp_path / "out")
    path = tmp_path / "out/merge/test.tokens"
    path.write_bytes(path.read_bytes()[:-1])
    seen = txlplan("data", "inspect", tmp_path / "out", "--json")
    assert seen.exit_code == 2
    assert "truncated" in seen.json["error"]["message"]
    assert "prepare the data again" in seen.json["error"]["hint"]


def test_text_lost_to_unknown_words_is_noted(txlplan: Any, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one two three\n" * 20)
    (tmp_path / "valid.txt").write_text("four five one\n")
    made = txlplan(
        "data",
        "prepare",
        tmp_path / "train.txt",
        "--valid",
        tmp_path / "valid.txt",
        "-o",
        tmp_path / "out",
        "--vocabulary",
        "words",
    )
    assert "50% of the valid split's tokens are unknown" in made.stderr


def test_standard_input_through_a_pipe(text: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "txlplan", "data", "prepare", "-", "-o", str(tmp_path / "out")]
    with text.open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True)
    assert (done.returncode, "read: " in done.stderr) == (0, True)
    splits = [(tmp_path / f"out/split/{name}.txt").read_text() for name in ("train", "valid", "test")]
    assert "".join(splits) == text.read_text()


def test_a_bar_is_shown_on_a_terminal(text: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "txlplan", "data", "prepare", str(text), "-o", str(tmp_path / "out")]
    done = subprocess.Popen(command, stderr=writer, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"})
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # Linux tells the end of a pseudo-terminal so
        while chunk := os.read(reader, 4096):
            shown += chunk
    os.close(reader)
    assert done.wait() == 0
    assert b"serialise" in shown
    assert b"kB" in shown
