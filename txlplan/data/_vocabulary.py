"""What a vocabulary is, and the ones whose symbols are bytes or characters."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from txlplan.errors import DataError
from txlplan.files import write_text

FILE_NAME = "vocabulary.json"
UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"
_PADDING = 128
"""A model's vocabulary may be rounded up to a multiple of this."""


def token_dtype(size: int) -> np.dtype[Any]:
    """The smallest unsigned type that numbers `size` symbols: 1, 2 or 4 bytes, little-endian."""
    return np.dtype("u1" if size <= 1 << 8 else "<u2" if size <= 1 << 16 else "<u4")


class Vocabulary(ABC):
    """Text ↔ numbers below `size`."""

    kind: ClassVar[str]
    lossless: ClassVar[bool]
    """`decode(encode(text)) == text`, where no symbol is unknown."""
    size: int
    unknown_id: int | None = None

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Token ids of `text`, shape [tokens], of `token_dtype(size)`."""

    @abstractmethod
    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """The text of token ids, shape [tokens]. Numbers from `size` on (of a padded model) are unknown symbols."""

    @abstractmethod
    def symbol(self, token_id: int) -> str:
        """One token as text, for tables."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the vocabulary's files."""

    def encode_utf8(self, block: bytes) -> np.ndarray:
        """`encode` of a block of UTF-8."""
        return self.encode(block.decode("utf-8"))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of token files."""
        return token_dtype(self.size)

    def check(self, vocab_size: int) -> None:
        """Raise DataError unless a model with `vocab_size` symbols (rounded up to 128 or not) fits this vocabulary."""
        rounded = -(-self.size // _PADDING) * _PADDING
        if not self.size <= vocab_size <= rounded:
            raise DataError(
                f"the model has vocab_size = {vocab_size}, the data a vocabulary of {self.size} {self.kind}",
                hint=f'give --model a file with `extends = "MODEL"` and `vocab_size = {self.size}`, or prepare the data with '
                "the model's vocabulary",
            )


class ByteVocabulary(Vocabulary):
    """The 256 bytes of UTF-8. Bytes that are no UTF-8 decode to U+FFFD."""

    kind = "bytes"
    lossless = True
    size = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)

    def encode_utf8(self, block: bytes) -> np.ndarray:
        return np.frombuffer(block, np.uint8)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        return np.asarray(ids, np.uint8).tobytes().decode("utf-8", errors="replace")

    def symbol(self, token_id: int) -> str:
        return chr(token_id) if 32 <= token_id < 127 else f"0x{token_id:02x}"

    def save(self, directory: Path) -> None:
        write_symbols(directory, self.kind, [])


class CharacterVocabulary(Vocabulary):
    """Unicode characters, most frequent first; number 0 is `<unk>`, which decodes to U+FFFD."""

    kind = "characters"
    lossless = True
    unknown_id = 0

    def __init__(self, symbols: Sequence[str]) -> None:
        self.size = len(symbols)
        self._symbols = list(symbols)
        self._points = np.array([0xFFFD, *(ord(symbol) for symbol in symbols[1:])], "<u4")
        self._ids = np.zeros(0x110000, self.dtype)
        self._ids[self._points[1:]] = np.arange(1, self.size)

    def encode(self, text: str) -> np.ndarray:
        ids: np.ndarray = self._ids[code_points(text)]
        return ids

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        numbers = np.asarray(ids, np.int64)
        return (
            self._points[np.where(numbers < self.size, numbers, self.unknown_id)].tobytes().decode("utf-32-le", "surrogatepass")
        )

    def symbol(self, token_id: int) -> str:
        return self._symbols[token_id]

    def save(self, directory: Path) -> None:
        write_symbols(directory, self.kind, self._symbols)


def code_points(text: str) -> np.ndarray:
    """Unicode code points, shape [characters], uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def write_symbols(directory: Path, kind: str, symbols: Sequence[str]) -> None:
    """`vocabulary.json`: the kind, and the symbols in the order of their numbers."""
    document = {"kind": kind, "symbols": list(symbols)}
    write_text(directory / FILE_NAME, json.dumps(document, ensure_ascii=False, indent=0) + "\n")
