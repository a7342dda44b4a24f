"""A prepared data set, opened: memory-mapped tokens, their vocabulary, and the sizes that metrics need."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from txlplan.data._build import DIRECTORY as VOCABULARY_DIRECTORY
from txlplan.data._build import load_vocabulary
from txlplan.data._manifest import Manifest, SplitData, read_manifest
from txlplan.data._merge import file_sha256
from txlplan.data._vocabulary import Vocabulary
from txlplan.errors import DataError

_AGAIN = "prepare the data again; the text and token files of a data set are not to be edited"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What `open_dataset` gives."""

    directory: Path
    manifest: Manifest
    vocabulary: Vocabulary

    def split(self, name: str) -> SplitData:
        """Sizes of a split: `tokens`, `characters`, `bytes`. Raises DataError for a split that is not there."""
        if name not in self.manifest.splits:
            known = list(self.manifest.splits)
            if not known:
                raise DataError(
                    f"{self.directory}: is a vocabulary without text, so it has no split {name!r}",
                    hint=f"txlplan data prepare INPUT... --output DATA --vocabulary-of {self.directory}; then --data DATA",
                )
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has: {', '.join(known)}"
            raise DataError(f"{self.directory}: no split {name!r}", hint=hint)
        return self.manifest.splits[name]

    def tokens(self, split: str) -> np.ndarray:
        """Token ids, shape [tokens], read-only and memory-mapped, of `vocabulary.dtype`."""
        data = self.split(split)
        return np.memmap(self.directory / data.tokens_file, np.dtype(data.dtype).newbyteorder("<"), "r", shape=(data.tokens,))

    def counts(self, split: str) -> np.ndarray:
        """How often each symbol is in the split, shape [vocabulary], int64."""
        path = (self.directory / self.split(split).tokens_file).with_suffix(".counts.npy")
        try:
            counts: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}", hint=_AGAIN) from None
        return counts


def open_dataset(directory: Path, *, verify: bool = False) -> Dataset:
    """Open what `prepare` wrote. Sizes and the vocabulary's checksums are always checked, with `verify` all of them.

    Raises DataError for a directory that is no data set, a truncated or altered file, or another vocabulary.
    """
    directory = Path(directory).expanduser()
    manifest = read_manifest(directory)
    for name, split in manifest.splits.items():
        path, size = directory / split.tokens_file, split.tokens * np.dtype(split.dtype).itemsize
        _check_size(path, size, f"{split.tokens} tokens of {split.dtype} in the {name} split")
    for file, checksum in manifest.vocabulary.files.items():
        _check_sha256(directory / file, checksum)
    vocabulary = load_vocabulary(directory / VOCABULARY_DIRECTORY)
    if (vocabulary.kind, vocabulary.size) != (manifest.vocabulary.kind, manifest.vocabulary.size):
        raise DataError(
            f"{directory}: the manifest names {manifest.vocabulary.size} {manifest.vocabulary.kind}, "
            f"the vocabulary holds {vocabulary.size} {vocabulary.kind}",
            hint=_AGAIN,
        )
    if verify:
        verify_checksums(directory, manifest)
    return Dataset(directory=directory, manifest=manifest, vocabulary=vocabulary)


def verify_checksums(directory: Path, manifest: Manifest) -> list[str]:
    """Compare every token and text file with its sha256 and return their names. Raises DataError at the first that differs."""
    checked = list(manifest.vocabulary.files)
    for split in manifest.splits.values():
        for file, checksum in ((split.tokens_file, split.tokens_sha256), (split.text, split.text_sha256)):
            _check_sha256(directory / file, checksum)
            checked.append(file)
    return checked


def unigram_entropy_bits_per_character(dataset: Dataset, split: str) -> float:
    """What guessing each token by its frequency in the split costs: -sum(p log2 p) * tokens / characters."""
    data = dataset.split(split)
    return data.unigram_entropy_bits_per_token * data.tokens / data.characters


def bits_per_character(nats_per_token: float, split: SplitData) -> float:
    """Mean loss in nats per token as bits per Unicode character of the split's text."""
    return nats_per_token * split.tokens / split.characters / float(np.log(2.0))


def _check_size(path: Path, size: int, what: str) -> None:
    if not path.exists():
        raise DataError(f"{path}: missing", hint=_AGAIN)
    actual = path.stat().st_size
    if actual != size:
        how = "truncated" if actual < size else "longer than it was"
        raise DataError(f"{path}: {how}: {actual} bytes instead of {size} ({what})", hint=_AGAIN)


def _check_sha256(path: Path, checksum: str) -> None:
    if not path.exists():
        raise DataError(f"{path}: missing", hint=_AGAIN)
    actual = file_sha256(path)
    if actual != checksum:
        raise DataError(f"{path}: checksum differs: sha256 {actual[:12]}… instead of {checksum[:12]}…", hint=_AGAIN)
