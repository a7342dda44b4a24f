"""Pieces of text as tokens come: their sum is the text, and nothing of a stop string is in them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.data import ByteVocabulary, Progress, Settings, Vocabulary, WordVocabulary
from txlplan.data._build import build_vocabulary
from txlplan.data._vocabulary import CharacterVocabulary
from txlplan.engine.text_stream import TextStream

TEXT = "the cat sat, naïve 漢字 on the 🙂 mat.\nthe end of it\n\n"
WORDS = WordVocabulary(["<eos>", "<unk>", "the", "cat", "sat", "sat,", "on", "end", "of", "it"])
CHARACTERS = CharacterVocabulary(["<unk>", *sorted(set(TEXT))])


@pytest.fixture(scope="module")
def subwords(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vocabulary]:
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text(TEXT * 20, encoding="utf-8")
    made = {
        "bpe": Settings(vocabulary="bpe", vocabulary_size=280),
        "wordpiece": Settings(vocabulary="wordpiece", vocabulary_size=60),
    }
    return {kind: build_vocabulary(path, setting, 1, Progress()) for kind, setting in made.items()}


def streamed(vocabulary: Vocabulary, text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(vocabulary, stop)
    pieces = [stream.push(int(token)) for token in vocabulary.encode(text)]
    return [*pieces, stream.finish()], stream


@pytest.mark.parametrize("kind", ["bytes", "characters", "words", "bpe", "wordpiece"])
def test_the_pieces_are_the_text(kind: str, subwords: dict[str, Vocabulary]) -> None:
    vocabulary = {"bytes": ByteVocabulary(), "characters": CHARACTERS, "words": WORDS, **subwords}[kind]
    pieces, stream = streamed(vocabulary, TEXT)
    assert "".join(pieces) == stream.text == vocabulary.decode(vocabulary.encode(TEXT))
    assert sum(piece != "" for piece in pieces) > 10


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="�"), max_size=30))
def test_any_text_of_bytes_comes_whole_and_never_torn(text: str) -> None:
    pieces, stream = streamed(ByteVocabulary(), text)
    assert "".join(pieces) == stream.text == text
    assert "�" not in "".join(pieces)


@settings(max_examples=200)
@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=2))
def test_nothing_of_a_stop_string_is_shown(text: str, stop: list[str]) -> None:
    pieces, stream = streamed(ByteVocabulary(), text, tuple(stop))
    ends = [text.find(string) + len(string) for string in stop if string in text]
    assert stream.is_stopped == bool(ends)
    taken = text[: min(ends, default=None)]  # the one that is whole first ends the text
    first = min((taken.find(string) for string in stop if string in taken), default=None)
    assert "".join(pieces) == stream.text == taken[:first]


def test_tokens_after_a_stop_are_not_taken() -> None:
    stream = TextStream(ByteVocabulary(), ("\n",))
    assert [stream.push(byte) for byte in b"a\nb"] == ["a", "", ""]
    assert stream.text == "a"


def test_bytes_that_are_no_text_do_not_wait_for_ever() -> None:
    stream = TextStream(ByteVocabulary())
    assert "".join(stream.push(0xFF) for _ in range(50)).count("�") >= 40
