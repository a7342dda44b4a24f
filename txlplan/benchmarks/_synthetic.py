"""Synthetic text with a vocabulary of exactly the size that a model has."""

from __future__ import annotations

from pathlib import Path

from txlplan import resources
from txlplan.data._settings import VocabularyKind
from txlplan.files import replacing

TOKENS = 400_000
"""Beside each symbol once. Streams wrap around, so that any batch can be fed; what the tokens are changes no timing of note."""
_SPECIAL_SYMBOLS = 2
"""`<eos>` and `<unk>` of a vocabulary of words."""


def synthetic_data(vocab_size: int, *, seed: int = 0) -> Path:
    """A prepared data set of `vocab_size` symbols (bytes for 256, else words), made once and kept.

    Words are drawn by Zipf's law (the r-th most frequent in proportion to 1/r), as natural text nearly has them: the cost
    of an adaptive softmax depends on it.
    """
    from txlplan.data import Settings, prepare

    directory = resources.user_data() / "synthetic" / f"{vocab_size}-{seed}"
    text = directory.with_suffix(".txt")
    if not text.exists():
        with replacing(text) as temporary:
            temporary.write_text(_bytes(seed) if vocab_size == 256 else _words(vocab_size - _SPECIAL_SYMBOLS, seed), "utf-8")
    kind: VocabularyKind = "bytes" if vocab_size == 256 else "words"
    prepare([text], directory, settings=Settings(vocabulary=kind, ratios=(1.0, 0.0, 0.0)))
    return directory


def _words(count: int, seed: int) -> str:
    import numpy as np

    ranks = np.arange(1, count + 1)
    drawn = np.random.default_rng(seed).choice(count, TOKENS, p=(1 / ranks) / (1 / ranks).sum())
    return " ".join(f"w{number}" for number in (*range(count), *drawn.tolist())) + "\n"


def _bytes(seed: int) -> str:
    import numpy as np

    drawn = np.random.default_rng(seed).integers(32, 127, TOKENS, np.uint8)
    return drawn.tobytes().decode("ascii")
