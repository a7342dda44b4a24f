"""A data set of a vocabulary alone: what a model that came without text generates by, and what text is prepared with."""

from __future__ import annotations

from pathlib import Path

from txlplan.data._build import DIRECTORY, load_vocabulary
from txlplan.data._manifest import FILE_NAME, Manifest, VocabularyFiles, write_json
from txlplan.data._merge import file_sha256
from txlplan.data._settings import Settings
from txlplan.data._vocabulary import FILE_NAME as VOCABULARY_FILE
from txlplan.data._vocabulary import Vocabulary
from txlplan.errors import DataError


def write_vocabulary_set(directory: Path, vocabulary: Vocabulary) -> None:
    """Make `directory` a data set without splits."""
    target = directory / DIRECTORY
    target.mkdir(parents=True)
    vocabulary.save(target)
    manifest = Manifest(
        settings=Settings(vocabulary=vocabulary.kind),  # type: ignore[arg-type]  # each kind is one that settings name
        inputs=(),
        assignment="none: a vocabulary without text",
        vocabulary=VocabularyFiles(
            kind=vocabulary.kind,
            size=vocabulary.size,
            lossless=vocabulary.lossless,
            files=vocabulary_checksums(target),
        ),
        splits={},
    )
    write_json(directory / FILE_NAME, manifest)


def vocabulary_of(path: Path) -> Vocabulary:
    """The vocabulary of a data set, of an imported or exported model, or of a directory that holds its files."""
    return load_vocabulary(vocabulary_place(path))


def vocabulary_checksums(place: Path) -> dict[str, str]:
    """sha256 of the files of a vocabulary, named as a manifest names them."""
    files = sorted(path for path in place.iterdir() if path.name != "step.json")
    return {f"{DIRECTORY}/{path.name}": file_sha256(path) for path in files}


def vocabulary_place(path: Path) -> Path:
    """The directory under `path` in which a vocabulary lies. Raises DataError."""
    places = (path, path / DIRECTORY, path / "data" / DIRECTORY)
    for place in places:
        if (place / VOCABULARY_FILE).is_file():
            return place
    raise DataError(
        f"{path}: no such directory" if not path.exists() else f"{path}: holds no {VOCABULARY_FILE}",
        hint="name a data set of `txlplan data prepare`, or what `txlplan model import` or `export` wrote",
    )
