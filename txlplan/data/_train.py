"""Train WordPiece and byte-level BPE with the `tokenizers` library: the same text always gives the same vocabulary."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from txlplan.data._progress import Progress
from txlplan.data._settings import SUBWORD_SIZE, Settings
from txlplan.data._subwords import BpeVocabulary, WordPieceVocabulary, lines
from txlplan.data._text import file_blocks
from txlplan.data._vocabulary import END_OF_LINE, UNKNOWN
from txlplan.errors import DataError

_CONTINUES = "##"


def train_bpe(text: Path, settings: Settings, progress: Progress) -> BpeVocabulary:
    """Byte-level BPE: 256 bytes, then merges, the most frequent first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_size or SUBWORD_SIZE,
        min_frequency=settings.min_count,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(settings.special_symbols),
    )
    tokenizer.train_from_iterator(_line_batches(text, progress), trainer)
    return BpeVocabulary(tokenizer)


def train_wordpiece(text: Path, characters: Counter[str], settings: Settings, progress: Progress) -> WordPieceVocabulary:
    """WordPiece of a text with these `characters`.

    The library numbers the pieces `##x` as a hash table happens to yield them, and breaks ties by number. Named in
    order beforehand they keep their numbers; the tokenizer is then made anew, so that they are no special symbols.
    Raises DataError when the characters alone are more than the vocabulary may hold.
    """
    special = list(dict.fromkeys([END_OF_LINE, UNKNOWN, *settings.special_symbols]))
    kept = sorted(symbol for symbol, count in characters.items() if count >= settings.min_count)
    pieces = [_CONTINUES + symbol for symbol in kept if _within_words(symbol)]
    most = settings.vocabulary_size or SUBWORD_SIZE
    trainer = trainers.WordPieceTrainer(
        vocab_size=most, min_frequency=settings.min_count, show_progress=False, special_tokens=special + pieces
    )
    trained = _wordpiece({UNKNOWN: 0})
    trained.train_from_iterator(_line_batches(text, progress), trainer)
    if trained.get_vocab_size() > most:
        raise DataError(
            f"{len(characters)} different characters make {trained.get_vocab_size()} pieces, vocabulary_size is {most}",
            hint="raise --vocabulary-size or --min-count, or take --vocabulary bpe",
        )
    tokenizer = _wordpiece(trained.get_vocab(with_added_tokens=True))
    tokenizer.add_special_tokens(special)
    return WordPieceVocabulary(tokenizer)


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _within_words(symbol: str) -> bool:
    """Whether a character can go on a word: white space and punctuation divide words."""
    return not (symbol.isspace() or symbol in string.punctuation or unicodedata.category(symbol)[0] in "PZC")


def _line_batches(text: Path, progress: Progress) -> Iterator[list[str]]:
    for block in file_blocks(text, 0, text.stat().st_size):
        yield list(lines(block.decode()))
        progress.advance(len(block))
