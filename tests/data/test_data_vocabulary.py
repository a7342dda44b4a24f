from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.data import Progress, Settings, Vocabulary, load_vocabulary
from txlplan.data._build import build_vocabulary
from txlplan.data._subwords import lines
from txlplan.data._vocabulary import ByteVocabulary, CharacterVocabulary, token_dtype
from txlplan.data._words import WordVocabulary
from txlplan.errors import DataError

TEXT = "the cat sat on the mat.\n\nthe  naïve 漢字 café 🙂\nthe end <pad> the\n" * 20
ANY_TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=80)


def built(tmp_path: Path, **given: object) -> Vocabulary:
    """The vocabulary of TEXT, saved and loaded again."""
    (tmp_path / "text").write_bytes(TEXT.encode())
    vocabulary = build_vocabulary(tmp_path / "text", Settings(**given), 1, Progress())  # type: ignore[arg-type]
    vocabulary.save(tmp_path)
    loaded = load_vocabulary(tmp_path)
    assert (loaded.size, loaded.kind) == (vocabulary.size, vocabulary.kind)
    assert loaded.encode(TEXT).tolist() == vocabulary.encode(TEXT).tolist()
    return loaded


@pytest.mark.parametrize(("size", "dtype"), [(256, "u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_the_smallest_type_that_numbers_the_symbols_is_taken(size: int, dtype: str) -> None:
    assert token_dtype(size) == np.dtype(dtype)


@given(ANY_TEXT)
def test_bytes_round_trip(text: str) -> None:
    vocabulary = ByteVocabulary()
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.encode(text).tolist() == list(text.encode())


def test_bytes_that_are_no_utf8_decode_to_the_replacement_character() -> None:
    assert ByteVocabulary().decode([0x61, 0xFF, 0x62, 0xC3]) == "a\ufffdb\ufffd"


def test_characters_are_numbered_by_falling_count(tmp_path: Path) -> None:
    vocabulary = built(tmp_path, vocabulary="characters")
    assert vocabulary.size == len(set(TEXT)) + 1
    counts = np.bincount(vocabulary.encode(TEXT), minlength=vocabulary.size)
    assert counts[0] == 0
    assert (np.diff(counts[1:]) <= 0).all()
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT


def test_characters_that_the_train_split_lacks_are_unknown(tmp_path: Path) -> None:
    vocabulary = built(tmp_path, vocabulary="characters")
    assert vocabulary.decode(vocabulary.encode("caZt")) == "ca\ufffdt"


@given(ANY_TEXT)
def test_characters_round_trip_where_all_are_known(text: str) -> None:
    vocabulary = CharacterVocabulary(["<unk>", *sorted(set(text))])
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_rare_and_surplus_symbols_are_left_out(tmp_path: Path) -> None:
    kept = built(tmp_path, vocabulary="words", min_count=21)
    assert [kept.symbol(number) for number in range(kept.size)] == ["<eos>", "<unk>", "the"]
    few = built(tmp_path, vocabulary="words", vocabulary_size=4)
    assert [few.symbol(number) for number in range(few.size)] == ["<eos>", "<unk>", "the", "<pad>"]
    small = built(tmp_path, vocabulary="characters", vocabulary_size=4)
    assert [small.symbol(number) for number in range(small.size)] == ["<unk>", " ", "t", "e"]


def test_words_are_those_of_a_plain_split_with_a_symbol_for_each_newline(tmp_path: Path) -> None:
    vocabulary = built(tmp_path, vocabulary="words")
    expected = [word for line in TEXT.splitlines() for word in (*line.split(), "<eos>")]
    assert [vocabulary.symbol(number) for number in vocabulary.encode(TEXT)] == expected
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT.replace("  ", " ")


def test_words_special_symbols_come_first_and_unknown_words_are_marked(tmp_path: Path) -> None:
    vocabulary = built(tmp_path, vocabulary="words", special_symbols=("<pad>", "<unused>"))
    assert [vocabulary.symbol(number) for number in range(4)] == ["<eos>", "<unk>", "<pad>", "<unused>"]
    assert vocabulary.decode(vocabulary.encode("the dog <pad>\n")) == "the <unk> <pad>\n"


WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "\n", "\n"]), max_size=30)


@given(WORDS)
def test_words_round_trip_up_to_white_space(words: list[str]) -> None:
    vocabulary = WordVocabulary(["<eos>", "<unk>", "a", "bb", "ccc"])
    text = " ".join(words)
    decoded = vocabulary.decode(vocabulary.encode(text))
    assert vocabulary.encode(decoded).tolist() == vocabulary.encode(text).tolist()
    assert decoded == "\n".join(" ".join(line.split()) for line in text.split("\n"))


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return built(tmp_path_factory.mktemp("bpe"), vocabulary="bpe", vocabulary_size=280, special_symbols=("<pad>",))


@settings(max_examples=60)
@given(text=ANY_TEXT | st.text(alphabet=" \n\r\ta<pad>é", max_size=60))
def test_bpe_decodes_any_text_to_itself(bpe: Vocabulary, text: str) -> None:
    assert bpe.decode(bpe.encode(text)) == text


def test_bpe_is_of_the_asked_size_and_keeps_special_symbols_whole(bpe: Vocabulary) -> None:
    assert bpe.size == 280
    assert bpe.encode("<pad>").tolist() == [0]
    assert len(bpe.encode(TEXT)) < len(TEXT.encode()) * 0.6


@given(st.text(alphabet="ab \n", max_size=200))
def test_lines_join_to_the_text(text: str) -> None:
    assert "".join(lines(text)) == text
    assert all(line.endswith("\n") for line in list(lines(text))[:-1])


def test_a_very_long_line_is_cut_before_a_space() -> None:
    pieces = list(lines("word " * 10_000))
    assert "".join(pieces) == "word " * 10_000
    assert max(map(len, pieces)) <= 16 << 10
    assert all(piece.startswith(" word") for piece in pieces[1:])
    assert list(map(len, lines("x" * 40_000))) == [16384, 16384, 7232]


def test_wordpiece_training_is_repeatable(tmp_path: Path) -> None:
    files = set()
    for _ in range(3):
        built(tmp_path, vocabulary="wordpiece", vocabulary_size=80)
        files.add((tmp_path / "tokenizer.json").read_bytes())
    assert len(files) == 1


def test_wordpiece_refuses_more_characters_than_symbols(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pieces, vocabulary_size is 20"):
        built(tmp_path, vocabulary="wordpiece", vocabulary_size=20)


def test_wordpiece_marks_line_ends_and_keeps_words(tmp_path: Path) -> None:
    vocabulary = built(tmp_path, vocabulary="wordpiece", vocabulary_size=200, special_symbols=("<pad>",))
    assert [vocabulary.symbol(number) for number in range(3)] == ["<eos>", "<unk>", "<pad>"]
    assert vocabulary.decode(vocabulary.encode("the cat sat\n\nthe mat <pad>\n")) == "the cat sat\n\nthe mat <pad>\n"
    assert vocabulary.unknown_id in vocabulary.encode("Ω").tolist()


@pytest.mark.parametrize("vocab_size", [100, 128])
def test_a_model_of_the_same_size_or_padded_to_128_fits(vocab_size: int) -> None:
    WordVocabulary(["<eos>", "<unk>", *map(str, range(98))]).check(vocab_size)


@pytest.mark.parametrize("vocab_size", [99, 256])
def test_a_model_of_another_size_is_refused_with_both_numbers(vocab_size: int) -> None:
    with pytest.raises(DataError, match=f"vocab_size = {vocab_size}.* 100 words") as caught:
        WordVocabulary(["<eos>", "<unk>", *map(str, range(98))]).check(vocab_size)
    assert "`vocab_size = 100`" in str(caught.value.hint)


def test_numbers_that_only_a_padded_model_has_decode_as_unknown(bpe: Vocabulary) -> None:
    assert CharacterVocabulary(["<unk>", "a"]).decode([1, 127, 1]) == "a\ufffda"
    assert WordVocabulary(["<eos>", "<unk>", "a"]).decode([2, 100]) == "a <unk>"
    assert bpe.decode([*bpe.encode("cat").tolist(), bpe.size + 1]) == "cat"


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "runes"}', '{"kind": "words"}', '{"kind": "bpe"}'])
def test_a_damaged_vocabulary_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(DataError, match=str(tmp_path)):
        load_vocabulary(tmp_path)


def test_a_damaged_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text('{"kind": "bpe", "symbols": []}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: not a tokenizer"):
        load_vocabulary(tmp_path)
