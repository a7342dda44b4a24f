"""Vocabularies of other programs, as ours. No pickle is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from txlplan.data import ByteVocabulary, Vocabulary, WordVocabulary, vocabulary_of
from txlplan.data._vocabulary import END_OF_LINE, UNKNOWN
from txlplan.errors import CheckpointError, DataError
from txlplan.interchange._source import load_plain

BYTES = "bytes"
OWN_DIRECTORY = "vocabulary"
TEXT_FILE = "vocab.txt"
_BESIDE = (OWN_DIRECTORY, TEXT_FILE, "vocab.json", "vocab.bin", "vocab.pkl")
"""Looked for beside a model, in this order: ours, then the names that Hugging Face's tokenizer gave its files."""
_MOST_NAMED = 5
_AS_TEXT = "where you trust it, write its symbols in the order of their numbers to a .txt file and name that with --vocabulary"
_FORMS = "--vocabulary takes `bytes`, a .txt of one symbol a line, a .json of symbols and numbers, or a data set"


def read_vocabulary(given: str | None, source: Path) -> Vocabulary:
    """The vocabulary that is named, else the one that lies beside the model. Raises DataError."""
    if given == BYTES:
        return ByteVocabulary()
    path = Path(given).expanduser() if given is not None else _beside(source)
    if path.is_dir():
        return vocabulary_of(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or directory", hint=_FORMS)
    symbols = _READERS.get(path.suffix, _text_symbols)(path)
    _check(path, symbols)
    return WordVocabulary(symbols)


def _beside(source: Path) -> Path:
    directory = source if source.is_dir() else source.parent
    found = [directory / name for name in _BESIDE if (directory / name).exists()]
    if not found:
        raise DataError(f"{directory}: there is no vocabulary beside the model ({', '.join(_BESIDE)})", hint=_FORMS)
    return found[0]


def _text_symbols(path: Path) -> list[str]:
    """The first word of each line, as the original code's `build_from_file` reads it."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    words = [line.split() for line in lines]
    if [] in words:
        raise DataError(f"{path}: line {words.index([]) + 1} is empty: every number needs a symbol")
    return [line[0] for line in words]


def _numbered_symbols(path: Path) -> list[str]:
    """Symbols in the order of the numbers that a JSON object gives them."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if isinstance(raw, list):
        return _texts(path, raw)
    if not isinstance(raw, Mapping) or not all(type(number) is int for number in raw.values()):
        raise DataError(f"{path}: neither a list of symbols nor an object of symbols and their numbers")
    symbols = {number: symbol for symbol, number in raw.items()}
    missing = [number for number in range(len(raw)) if number not in symbols]
    if missing:
        named = ", ".join(map(str, missing[:_MOST_NAMED]))
        raise DataError(
            f"{path}: the numbers of its {len(raw)} symbols are not 0 to {len(raw) - 1}: "
            f"{len(missing)} of these are missing, from {named} on",
            hint="number the symbols without a gap, as the rows of the model's embedding are",
        )
    return [symbols[number] for number in range(len(symbols))]


def _torch_symbols(path: Path) -> list[str]:
    """`idx2sym` of a vocabulary that Hugging Face's tokenizer saved with torch."""
    try:
        content: Any = load_plain(path)
    except CheckpointError as error:
        raise DataError(error.message, hint=_AS_TEXT) from None
    if not isinstance(content, Mapping) or not isinstance(content.get("idx2sym"), list):
        raise DataError(f"{path}: holds no vocabulary: it has no list idx2sym")
    return _texts(path, content["idx2sym"])


def _refuse_pickle(path: Path) -> list[str]:
    raise DataError(
        f"{path}: refused: reading a pickle runs whatever code its author put in it",
        hint=f"{_AS_TEXT}, like "
        f"python -c \"import pickle; print(*pickle.load(open('{path.name}', 'rb'))['idx2sym'], sep='\\n')\" > {TEXT_FILE}",
    )


_READERS = {".json": _numbered_symbols, ".bin": _torch_symbols, ".pt": _torch_symbols, ".pkl": _refuse_pickle}


def _texts(path: Path, values: Sequence[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: a symbol is not text")
    return list(values)


def _check(path: Path, symbols: Sequence[str]) -> None:
    """Every number one symbol, every symbol one number, and the two that words cannot do without."""
    twice = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: {len(twice)} symbol(s) have more than one number: {', '.join(map(repr, twice[:_MOST_NAMED]))}"
        )
    missing = [symbol for symbol in (END_OF_LINE, UNKNOWN) if symbol not in symbols]
    if missing:
        raise DataError(
            f"{path}: has no {' and no '.join(missing)}: a vocabulary of words needs both, for line ends and unknown words"
        )
