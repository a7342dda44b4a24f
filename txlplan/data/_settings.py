"""What the user may set about a data set."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, get_args

from txlplan.config._schema import STRICT
from txlplan.errors import InputError

VocabularyKind = Literal["bytes", "characters", "words", "wordpiece", "bpe"]
Assignment = Literal["auto", "hash", "ordered"]

SPLITS = ("train", "valid", "test")
SUBWORD_SIZE = 16_384
"""Size of a WordPiece or BPE vocabulary when none is asked for."""


MOST = 2**31
"""Tokens are numbered by 32 bits, and counted by more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything besides the inputs that decides what a data set holds."""

    __pydantic_config__ = STRICT

    vocabulary: VocabularyKind = "bytes"
    vocabulary_size: int | None = None
    """Most symbols, the special ones included; None: no limit (characters, words) or 16,384 (wordpiece, bpe)."""
    min_count: int = 1
    """Characters, words and merges rarer than this in the train split get no symbol."""
    special_symbols: tuple[str, ...] = ()
    """Further symbols that are never cut apart (words, wordpiece, bpe)."""
    vocabulary_of: str | None = None
    """A data set or model whose vocabulary, of the kind `vocabulary`, is used as it is; None: one is made."""
    ratios: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """Shares of train, valid and test; has no effect when valid or test files are given."""
    documents: str = "file"
    """What a document is: `file`, `line`, `blank-line`, `starts:REGEX` or `ends:REGEX` (its first or last line matches)."""
    assignment: Assignment = "auto"
    """How ratios are met: `hash` draws whole documents, `ordered` cuts the text in its order."""

    def __post_init__(self) -> None:
        if min(self.ratios) < 0 or self.ratios[0] == 0 or abs(sum(self.ratios) - 1) > 1e-6:
            raise InputError(f"split {_joined(self.ratios)}: shares must be zero or more, train more than zero, the sum 1")
        _check_known("vocabulary", self.vocabulary, get_args(VocabularyKind))
        _check_known("assignment", self.assignment, get_args(Assignment))
        if not 1 <= self.min_count < MOST:
            raise InputError(f"min_count = {self.min_count} must be at least 1, and less than 2^31")
        self._check_vocabulary()
        check_documents(self.documents)

    def _check_vocabulary(self) -> None:
        if self.vocabulary_of and (self.vocabulary_size, self.min_count, self.special_symbols) != (None, 1, ()):
            raise InputError("vocabulary_size, min_count and special_symbols have no effect on a vocabulary that is there")
        if self.vocabulary == "bytes" and (self.vocabulary_size, self.min_count) not in ((None, 1), (256, 1)):
            raise InputError("a vocabulary of bytes has 256 symbols: vocabulary_size and min_count have no effect on it")
        if self.special_symbols and self.vocabulary in ("bytes", "characters"):
            raise InputError(f"special_symbols have no effect on a vocabulary of {self.vocabulary}")
        if len(set(self.special_symbols)) < len(self.special_symbols):
            raise InputError(f"special_symbols = {list(self.special_symbols)} names one twice")
        if not all(symbol.isascii() and symbol.isprintable() and symbol.split() == [symbol] for symbol in self.special_symbols):
            raise InputError(f"special_symbols = {list(self.special_symbols)}: each must be ASCII without white space")
        least = 256 + len(self.special_symbols) if self.vocabulary == "bpe" else 3 + len(self.special_symbols)
        if self.vocabulary_size is not None and not least <= self.vocabulary_size < MOST:
            size = self.vocabulary_size
            raise InputError(f"vocabulary_size = {size} must be at least {least} for {self.vocabulary}, and less than 2^31")


def parse_ratios(text: str) -> tuple[float, float, float]:
    """`0.9,0.05,0.05` → (0.9, 0.05, 0.05); two numbers leave the test split out. Raises InputError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 3:
        raise InputError(f"split {text!r} is no list of shares", hint="write train,valid,test like 0.9,0.05,0.05")
    return (numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else 0.0)


def check_documents(rule: str) -> None:
    """Raise InputError unless `rule` says what a document is."""
    kind, _, pattern = rule.partition(":")
    if rule in ("file", "line", "blank-line"):
        return
    if kind not in ("starts", "ends") or not pattern:
        raise InputError(
            f"documents = {rule!r} is not known", hint="use file, line, blank-line, 'starts:REGEX' or 'ends:REGEX'"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"documents = {rule!r}: not a regular expression: {error}") from None


def _check_known(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        nearest = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
        raise InputError(f"{setting} = {value!r} is not known", hint=hint)


def _joined(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
