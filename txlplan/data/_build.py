"""Step 2, vocabulary: made from the train split, or loaded from a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from txlplan.data._manifest import read_json
from txlplan.data._parallel import Advance, run
from txlplan.data._parts import Part, parts_of
from txlplan.data._progress import Progress
from txlplan.data._settings import Settings
from txlplan.data._subwords import TOKENIZER_FILE, BpeVocabulary, WordPieceVocabulary
from txlplan.data._text import file_blocks
from txlplan.data._vocabulary import (
    END_OF_LINE,
    FILE_NAME,
    UNKNOWN,
    ByteVocabulary,
    CharacterVocabulary,
    Vocabulary,
    code_points,
)
from txlplan.data._words import WordVocabulary, words
from txlplan.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIRECTORY = "vocabulary"


def build_vocabulary(text: Path, settings: Settings, processes: int, progress: Progress) -> Vocabulary:
    """The vocabulary of a split's text. Memory grows with the number of different symbols, not with the text."""
    if settings.vocabulary == "bytes":
        return ByteVocabulary()
    size, kind = text.stat().st_size, settings.vocabulary
    progress.begin("vocabulary", 2 * size if kind == "wordpiece" else size)
    if kind in ("characters", "words"):
        vocabulary = _counted(_counts(text, kind, processes, progress), settings)
    else:
        vocabulary = _trained(text, settings, processes, progress)
    progress.finish()
    return vocabulary


def _trained(text: Path, settings: Settings, processes: int, progress: Progress) -> Vocabulary:
    from txlplan.data._train import train_bpe, train_wordpiece

    if settings.vocabulary == "bpe":
        return train_bpe(text, settings, progress)
    return train_wordpiece(text, _counts(text, "characters", processes, progress), settings, progress)


def load_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary that `save` wrote. Raises DataError when its files are damaged."""
    raw = read_json(directory / FILE_NAME)
    kind, symbols = raw.get("kind"), raw.get("symbols")
    if kind == "bytes":
        return ByteVocabulary()
    if kind in ("bpe", "wordpiece"):
        tokenizer = _read_tokenizer(directory / TOKENIZER_FILE)
        return BpeVocabulary(tokenizer) if kind == "bpe" else WordPieceVocabulary(tokenizer)
    if not isinstance(symbols, list) or kind not in ("characters", "words"):
        raise DataError(f"{directory / FILE_NAME}: no vocabulary of a known kind", hint="prepare the data again")
    return CharacterVocabulary(symbols) if kind == "characters" else WordVocabulary(symbols)


@dataclass(frozen=True, slots=True)
class _CountTask:
    part: Part
    kind: str


def _counts(text: Path, kind: str, processes: int, progress: Progress) -> Counter[str]:
    """How often each word or character is in the text."""
    counts: Counter[str] = Counter()
    tasks = [_CountTask(part, kind) for part in parts_of(text)]
    for found in run(_count, tasks, text.stat().st_size, processes, progress):
        counts.update(found)
    return counts


def _count(task: _CountTask, advance: Advance) -> Counter[str]:
    """How often each word or character is in a part of the text."""
    counts: Counter[str] = Counter()
    points = np.zeros(0x110000 if task.kind == "characters" else 0, np.int64)
    for block in file_blocks(task.part.path, task.part.begin, task.part.end):
        if task.kind == "words":
            counts.update(words(block.decode()))
        else:
            found = code_points(block.decode())
            most = int(found.max(initial=0)) + 1
            points[:most] += np.bincount(found, minlength=most)
        advance(len(block))
    counts.update({chr(point): int(points[point]) for point in np.flatnonzero(points)})
    return counts


def _counted(counts: Counter[str], settings: Settings) -> Vocabulary:
    """Special symbols first, then by falling count; equal counts in the order of their code points."""
    special = [UNKNOWN] if settings.vocabulary == "characters" else [END_OF_LINE, UNKNOWN]
    special += [symbol for symbol in settings.special_symbols if symbol not in special]
    kept = [symbol for symbol, count in counts.items() if count >= settings.min_count and symbol not in special]
    kept.sort(key=lambda symbol: (-counts[symbol], symbol))
    most = None if settings.vocabulary_size is None else settings.vocabulary_size - len(special)
    symbols = special + kept[:most]
    return CharacterVocabulary(symbols) if settings.vocabulary == "characters" else WordVocabulary(symbols)


def _read_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.exists():
        raise DataError(f"{path}: no such file", hint="prepare the data again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{path}: not a tokenizer: {error}", hint="prepare the data again") from None
