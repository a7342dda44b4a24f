"""Step 4, merge: the parts become one ordered, counted and checksummed token file a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from txlplan.data._progress import Progress
from txlplan.data._text import BLOCK_BYTES
from txlplan.data._vocabulary import Vocabulary
from txlplan.files import replacing

DIRECTORY = "merge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """One token file."""

    sha256: str
    tokens: int
    parts: tuple[int, ...]
    unknown_tokens: int
    entropy_bits: float
    """Of the distribution of single tokens, per token."""


def merge(parts: Sequence[Path], output: Path, counts_file: Path, vocabulary: Vocabulary, progress: Progress) -> Merged:
    """Write `output` and how often each token is in it (`counts_file`, int64 [vocabulary] as .npy)."""
    digest, counts = hashlib.sha256(), np.zeros(vocabulary.size, np.int64)
    with replacing(output) as temporary, temporary.open("wb") as stream:
        for part in parts:
            for block in _blocks(part):
                stream.write(block)
                digest.update(block)
                counts += np.bincount(np.frombuffer(block, vocabulary.dtype), minlength=vocabulary.size)
                progress.advance(len(block))
    with replacing(counts_file) as temporary, temporary.open("wb") as stream:
        np.save(stream, counts)
    return Merged(
        sha256=digest.hexdigest(),
        tokens=int(counts.sum()),
        parts=tuple(part.stat().st_size // vocabulary.dtype.itemsize for part in parts),
        unknown_tokens=0 if vocabulary.unknown_id is None else int(counts[vocabulary.unknown_id]),
        entropy_bits=entropy_bits(counts),
    )


def entropy_bits(counts: np.ndarray) -> float:
    """Shannon's entropy of the distribution that `counts` [symbols] estimates, in bits per symbol: -sum(p log2 p)."""
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return abs(float(-(shares * np.log2(shares)).sum()))


def file_sha256(path: Path) -> str:
    """Of a whole file, streamed."""
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block
