"""The vocabulary of whitespace-separated words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from txlplan.data._vocabulary import END_OF_LINE, UNKNOWN, Vocabulary, write_symbols

_LINE_ENDS = re.compile(f" ?{END_OF_LINE} ?")


class WordVocabulary(Vocabulary):
    """Words, most frequent first (as an adaptive softmax needs them), after `<eos>`, `<unk>` and the user's symbols.

    `<eos>` stands for the end of each line, as in the Transformer-XL scripts for WikiText-103. Other white space is
    not kept: words decode with one space between them.
    """

    kind = "words"
    lossless = False

    def __init__(self, symbols: Sequence[str]) -> None:
        self.size = len(symbols)
        self._symbols = list(symbols)
        self._ids = {symbol: number for number, symbol in enumerate(symbols)}
        self.unknown_id = self._ids[UNKNOWN]
        self._end_of_line = self._ids[END_OF_LINE]

    def encode(self, text: str) -> np.ndarray:
        found = words(text)
        return np.fromiter(map(self._ids.get, found, repeat(self.unknown_id)), self.dtype, len(found))

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        numbers = np.asarray(ids, np.int64)
        return join_lines(
            [self._symbols[number] for number in np.where(numbers < self.size, numbers, self._ids[UNKNOWN]).tolist()]
        )

    def symbol(self, token_id: int) -> str:
        return self._symbols[token_id]

    def save(self, directory: Path) -> None:
        write_symbols(directory, self.kind, self._symbols)


def words(text: str) -> list[str]:
    """The words of `text`, with `<eos>` for each newline."""
    return text.replace("\n", f" {END_OF_LINE} ").split()


def join_lines(symbols: Sequence[str]) -> str:
    """Words joined by spaces, `<eos>` written as a newline."""
    return _LINE_ENDS.sub("\n", " ".join(symbols))
