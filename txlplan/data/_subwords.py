"""WordPiece and byte-level BPE, by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from txlplan.data._vocabulary import END_OF_LINE, UNKNOWN, Vocabulary, write_symbols

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
_LONGEST_LINE = 16 << 10
_LINES_AT_ONCE = 256
"""Lines encoded together: bounds the memory that the library's offsets take."""


class BpeVocabulary(Vocabulary):
    """Byte-level BPE (Radford et al. 2019): every text has tokens, and decodes to itself. Lines are encoded on their own."""

    kind = "bpe"
    lossless = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.size = tokenizer.get_vocab_size()
        self._tokenizer = tokenizer

    def encode(self, text: str) -> np.ndarray:
        return _encoded(self._tokenizer, lines(text), self.dtype)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        return str(self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False))

    def symbol(self, token_id: int) -> str:
        return str(self._tokenizer.id_to_token(token_id))

    def save(self, directory: Path) -> None:
        write_symbols(directory, self.kind, [])
        self._tokenizer.save(str(directory / TOKENIZER_FILE))


class WordPieceVocabulary(Vocabulary):
    """WordPiece (Schuster & Nakajima 2012) within words and punctuation; `<eos>` ends each line. White space is not kept."""

    kind = "wordpiece"
    lossless = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.size = tokenizer.get_vocab_size()
        self._tokenizer = tokenizer
        self.unknown_id = tokenizer.token_to_id(UNKNOWN)

    def encode(self, text: str) -> np.ndarray:
        marked = (line[:-1] + f" {END_OF_LINE}" if line.endswith("\n") else line for line in lines(text))
        return _encoded(self._tokenizer, marked, self.dtype)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        text = str(self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False))
        return text.replace(f" {END_OF_LINE}", "\n").replace(END_OF_LINE, "\n").replace("\n ", "\n")

    def symbol(self, token_id: int) -> str:
        return str(self._tokenizer.id_to_token(token_id))

    def save(self, directory: Path) -> None:
        write_symbols(directory, self.kind, [])
        self._tokenizer.save(str(directory / TOKENIZER_FILE))


def lines(text: str) -> Iterator[str]:
    """Lines with their newlines; a line over 16 Ki characters comes in pieces cut before a space."""
    begin, end = 0, len(text)
    while begin < end:
        stop = text.find("\n", begin, begin + _LONGEST_LINE) + 1 or min(begin + _LONGEST_LINE, end)
        if stop - begin == _LONGEST_LINE and stop < end and text[stop - 1] != "\n":
            space = text.rfind(" ", begin + 1, stop)
            stop = space if space > begin else stop
        yield text[begin:stop]
        begin = stop


def _encoded(tokenizer: Tokenizer, pieces: Iterator[str], dtype: np.dtype) -> np.ndarray:
    parts, batch = [], []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == _LINES_AT_ONCE:
            parts += [np.array(code.ids, dtype) for code in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            batch = []
    if batch:
        parts += [np.array(code.ids, dtype) for code in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
    return np.concatenate(parts) if parts else np.empty(0, dtype)
