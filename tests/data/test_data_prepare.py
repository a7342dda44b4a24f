from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from txlplan.data import Dataset, Manifest, Progress, Settings, _parallel, _parts, open_dataset, prepare

TextOf = Callable[[Dataset, str], str]
Tree = Callable[[Path], dict[str, str]]
KINDS: dict[str, dict[str, Any]] = {
    "bytes": {},
    "characters": {},
    "words": {"min_count": 2},
    "wordpiece": {"vocabulary_size": 300},
    "bpe": {"vocabulary_size": 300},
}


class Heard(Progress):
    """What a run told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps: dict[str, tuple[int | None, int]] = {}

    def begin(self, step: str, total_bytes: int | None) -> None:
        self.step, self.total, self.done = step, total_bytes, 0

    def advance(self, done_bytes: int) -> None:
        assert done_bytes >= 0
        self.done += done_bytes

    def finish(self) -> None:
        self.steps[self.step] = (self.total, self.done)
        self.told.append(self.step)

    def unchanged(self) -> None:
        self.told.append("unchanged")

    def picked_up(self, step: str) -> None:
        self.told.append(f"picked up {step}")


class Interrupting(Progress):
    """Ctrl-C before a step."""

    def __init__(self, step: str) -> None:
        self.step = step

    def begin(self, step: str, total_bytes: int | None) -> None:  # noqa: ARG002
        if step == self.step:
            raise KeyboardInterrupt


def of(kind: str, **more: Any) -> Settings:
    return Settings(vocabulary=kind, **KINDS[kind], **more)  # type: ignore[arg-type]


def joined(directory: Path) -> str:
    """The texts of a directory in order, with a newline between two where the first has none."""
    text = ""
    for path in sorted(directory.iterdir()):
        text += ("\n" if text and not text.endswith("\n") else "") + path.read_bytes().decode()
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_set_holds_what_the_text_says(kind: str, corpus: Path, tmp_path: Path, text_of: TextOf) -> None:
    prepare([corpus], tmp_path / "out", settings=of(kind))
    dataset = open_dataset(tmp_path / "out", verify=True)
    assert list(dataset.manifest.splits) == ["train", "valid", "test"]
    for name, split in dataset.manifest.splits.items():
        text, tokens = text_of(dataset, name), dataset.tokens(name)
        assert (split.characters, split.bytes) == (len(text), len(text.encode()))
        assert tokens.tolist() == dataset.vocabulary.encode(text).tolist()
        assert (split.tokens, tokens.dtype) == (len(tokens), dataset.vocabulary.dtype)
        assert dataset.counts(name).tolist() == np.bincount(tokens, minlength=dataset.vocabulary.size).tolist()
        if dataset.vocabulary.lossless and not split.unknown_tokens:
            assert dataset.vocabulary.decode(tokens) == text
    assert sum(split.documents for split in dataset.manifest.splits.values()) == 40


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_depend_neither_on_the_parts_nor_on_the_processes(
    kind: str, corpus: Path, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare([corpus], tmp_path / "out", settings=of(kind), processes=1)
    monkeypatch.setattr(_parts, "PART_BYTES", 300)
    monkeypatch.setattr(_parts, "_LOOK_BACK_BYTES", 200)
    one = prepare([corpus], tmp_path / "one", settings=of(kind), processes=1)
    monkeypatch.setattr(_parallel, "WORTH_A_POOL_BYTES", 0)
    prepare([corpus], tmp_path / "two", settings=of(kind), processes=2)
    assert len(one.splits["train"].parts) > 5
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    for name, split in whole.splits.items():
        assert split.tokens_sha256 == one.splits[name].tokens_sha256


def test_the_four_steps_are_visible(corpus: Path, tmp_path: Path, tree: Tree) -> None:
    prepare([corpus], tmp_path / "out", settings=of("bpe"))
    assert set(tree(tmp_path / "out")) == {
        "manifest.json",
        *(f"{step}/step.json" for step in ("split", "vocabulary", "serialise")),
        *(f"split/{name}.txt" for name in ("train", "valid", "test")),
        *(f"vocabulary/{name}.json" for name in ("vocabulary", "tokenizer")),
        *(f"merge/{name}.{kind}" for name in ("train", "valid", "test") for kind in ("tokens", "counts.npy")),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_progress_goes_over_all_bytes(corpus: Path, tmp_path: Path) -> None:
    heard = Heard()
    prepare([corpus], tmp_path / "out", settings=of("words"), progress=heard)
    assert heard.told == ["read", "split", "vocabulary", "serialise", "merge"]
    assert all(total == done for total, done in heard.steps.values())
    assert heard.steps["read"][0] == sum(path.stat().st_size for path in corpus.iterdir())


def test_hash_keeps_documents_whole_and_meets_the_shares(corpus: Path, tmp_path: Path, text_of: TextOf) -> None:
    manifest = prepare([corpus], tmp_path / "out", settings=Settings(ratios=(0.6, 0.2, 0.2)))
    assert manifest.assignment.startswith("hash")
    dataset = open_dataset(tmp_path / "out")
    total = sum(split.bytes for split in manifest.splits.values())
    for name, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        assert manifest.splits[name].bytes / total == pytest.approx(share, abs=0.05)
        assert text_of(dataset, name).count("Document ") == manifest.splits[name].documents


def test_few_documents_are_cut_in_order_at_lines(tmp_path: Path, text_of: TextOf) -> None:
    text = "".join(f"line {number} é\n" for number in range(1000))
    (tmp_path / "one.txt").write_bytes(text.encode())
    manifest = prepare([tmp_path / "one.txt"], tmp_path / "out")
    assert manifest.assignment == "ordered: 1 documents are too few to draw"
    dataset = open_dataset(tmp_path / "out")
    parts = [text_of(dataset, name) for name in ("train", "valid", "test")]
    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in parts)
    shares = [split.bytes / len(text.encode()) for split in manifest.splits.values()]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.005)


def test_ordered_cuts_fall_on_documents_where_they_are_near(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:02d}.txt").write_text(f"{number:03d} text\n")
    manifest = prepare([tmp_path / "*.txt"], tmp_path / "out", settings=Settings(assignment="ordered"))
    assert [split.documents for split in manifest.splits.values()] == [90, 5, 5]
    assert (tmp_path / "out/split/valid.txt").read_text().startswith("090 text\n")


def test_a_line_without_end_is_cut_between_characters(tmp_path: Path, text_of: TextOf) -> None:
    (tmp_path / "one.txt").write_bytes("漢".encode() * 1000)
    prepare([tmp_path / "one.txt"], tmp_path / "out", settings=of("characters"))
    dataset = open_dataset(tmp_path / "out")
    assert [len(text_of(dataset, name)) for name in ("train", "valid", "test")] == [900, 50, 50]


def test_given_files_are_the_splits(corpus: Path, tmp_path: Path, text_of: TextOf) -> None:
    (tmp_path / "v.txt").write_text("held out\n")
    manifest = prepare([corpus], tmp_path / "out", valid=[tmp_path / "v.txt"])
    dataset = open_dataset(tmp_path / "out")
    assert manifest.assignment == "files: as given"
    assert list(manifest.splits) == ["train", "valid"]
    assert text_of(dataset, "train") == joined(corpus)
    assert text_of(dataset, "valid") == "held out\n"


def test_gzip_glob_directory_and_stdin_give_the_same_text(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = joined(corpus)
    zipped = tmp_path / "in"
    zipped.mkdir()
    for path in corpus.iterdir():
        (zipped / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "all.gz").write_bytes(gzip.compress(text.encode()))
    settings = Settings(ratios=(1.0, 0.0, 0.0))

    def train(name: str, *inputs: str | Path) -> str:
        prepare(inputs, tmp_path / name, settings=settings)
        return (tmp_path / name / "split/train.txt").read_bytes().decode()

    for number, data in enumerate((text.encode(), gzip.compress(text.encode()))):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert train(f"stdin{number}", "-") == text
    assert train("directory", corpus) == train("glob", f"{corpus}/*.txt") == text
    assert train("zipped", zipped) == train("gz", tmp_path / "all.gz") == text
    assert [file.gzip for file in open_dataset(tmp_path / "gz").manifest.inputs] == [True]


def test_many_inputs_keep_their_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    settings = Settings(ratios=(1.0, 0.0, 0.0))
    prepare([tmp_path / f"{name}.txt" for name in "cab"], tmp_path / "out", settings=settings)
    assert (tmp_path / "out/split/train.txt").read_text() == "c\na\nb\n"


def again(corpus: Path, output: Path, **given: Any) -> tuple[list[str], Manifest]:
    heard = Heard()
    return heard.told, prepare([corpus], output, progress=heard, **given)


def test_run_again_unchanged_it_does_nothing(corpus: Path, tmp_path: Path, tree: Tree) -> None:
    first = prepare([corpus], tmp_path / "out")
    before = (tree(tmp_path / "out"), (tmp_path / "out/manifest.json").stat())
    told, second = again(corpus, tmp_path / "out")
    assert (told, second) == (["unchanged"], first)
    assert (tree(tmp_path / "out"), (tmp_path / "out/manifest.json").stat()) == before
    os.utime(corpus / "003.txt", (1, 1))  # another time, the same content
    assert again(corpus, tmp_path / "out")[0] == ["unchanged"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_what_changed_is_made_again(corpus: Path, tmp_path: Path) -> None:
    first = prepare([corpus], tmp_path / "out")
    data = (corpus / "003.txt").read_bytes()
    (corpus / "003.txt").write_bytes(b"X" + data[1:])
    told, second = again(corpus, tmp_path / "out")
    assert "merge" in told
    assert second.inputs[3].sha256 != first.inputs[3].sha256
    assert "merge" in again(corpus, tmp_path / "out", settings=of("words"))[0]
    (corpus / "new.txt").write_text("new\n")
    assert "merge" in again(corpus, tmp_path / "out", settings=of("words"))[0]
    open_dataset(tmp_path / "out", verify=True)
    assert not list(tmp_path.glob(".out*"))


def test_standard_input_is_compared_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def piped(text: str) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        heard = Heard()
        prepare(["-"], tmp_path / "out", progress=heard)
        return heard.told

    text = "some line\n" * 100
    assert piped(text)[-1] == "merge"
    assert piped(text)[-1] == "unchanged"
    assert piped(text + "more\n")[-1] == "merge"


def test_a_data_set_that_lost_a_file_is_made_again(corpus: Path, tmp_path: Path) -> None:
    prepare([corpus], tmp_path / "out")
    (tmp_path / "out/merge/valid.tokens").unlink()
    assert "merge" in again(corpus, tmp_path / "out")[0]
    open_dataset(tmp_path / "out", verify=True)


def test_a_former_data_set_set_aside_by_a_killed_run_is_put_back(corpus: Path, tmp_path: Path) -> None:
    prepare([corpus], tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    assert again(corpus, tmp_path / "out")[0] == ["unchanged"]
    shutil.copytree(tmp_path / "out", tmp_path / ".out.old")  # killed before it removed the former one
    assert again(corpus, tmp_path / "out")[0] == ["unchanged"]
    assert not (tmp_path / ".out.old").exists()


@pytest.mark.parametrize("step", ["split", "vocabulary"])
def test_an_interrupted_run_is_picked_up(step: str, corpus: Path, tmp_path: Path, tree: Tree) -> None:
    before = {"split": "vocabulary", "vocabulary": "merge"}[step]
    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tmp_path / "out", settings=of("bpe"), progress=Interrupting(before))
    assert not (tmp_path / "out").exists()
    told, _ = again(corpus, tmp_path / "out", settings=of("bpe"))
    assert f"picked up {step}" in told
    assert "read" not in told
    prepare([corpus], tmp_path / "fresh", settings=of("bpe"))
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_what_another_interrupted_run_left_is_not_taken(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tmp_path / "out", settings=of("bpe"), progress=Interrupting("merge"))
    told, manifest = again(corpus, tmp_path / "out", settings=of("words"))
    assert told[0] == "read"
    assert manifest.vocabulary.kind == "words"
    shutil.rmtree(tmp_path / "out")
    assert again(corpus, tmp_path / "out")[0][0] == "read"


def test_the_manifest_is_plain_json_with_every_checksum(corpus: Path, tmp_path: Path, tree: Tree) -> None:
    prepare([corpus], tmp_path / "out")
    raw = json.loads((tmp_path / "out/manifest.json").read_text())
    files = tree(tmp_path / "out")
    for split in raw["splits"].values():
        assert files[split["tokens_file"]] == split["tokens_sha256"]
        assert files[split["text"]] == split["text_sha256"]
    for file in raw["inputs"]:
        assert tree(corpus)[Path(file["name"]).name] == file["sha256"]


def test_a_vocabulary_that_is_there_is_used_as_it_is(corpus: Path, tmp_path: Path) -> None:
    prepare([corpus], tmp_path / "first", settings=of("words"))
    settings = Settings(vocabulary="words", vocabulary_of=str(tmp_path / "first"))
    (tmp_path / "new.txt").write_text("the words of another text\n" * 40)
    prepare([tmp_path / "new.txt"], tmp_path / "second", settings=settings)
    first, second = (open_dataset(tmp_path / name, verify=True) for name in ("first", "second"))
    assert first.manifest.vocabulary == second.manifest.vocabulary
    assert second.tokens("train")[:4].tolist() == first.vocabulary.encode("the words of another").tolist()


def test_another_vocabulary_at_the_same_place_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three\n" * 40)
    prepare([tmp_path / "text.txt"], tmp_path / "first", settings=of("words"))
    settings = Settings(vocabulary="words", vocabulary_of=str(tmp_path / "first"))
    for changed, told in ((False, False), (False, True), (True, False)):
        if changed:
            prepare(
                [tmp_path / "text.txt"], tmp_path / "first", settings=Settings(vocabulary="words", special_symbols=("<s>",))
            )
        heard = Heard()
        prepare([tmp_path / "text.txt"], tmp_path / "second", settings=settings, progress=heard)
        assert ("unchanged" in heard.told) == told
