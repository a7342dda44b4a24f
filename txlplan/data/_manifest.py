"""The manifest: what a prepared data set holds, and out of what it was made. Written last; without it there is no data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from txlplan.config import from_plain, to_plain
from txlplan.config._schema import STRICT
from txlplan.data._settings import Settings
from txlplan.errors import ConfigError, DataError
from txlplan.files import write_text

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One input as it was read."""

    __pydantic_config__ = STRICT

    name: str
    """Absolute path, or `-`."""
    split: str | None
    """The split that the user gave it to; None: divided by ratio."""
    gzip: bool
    size_bytes: int
    """On disk, compressed where it is."""
    modified_ns: int | None
    """Time of last change; None for standard input."""
    sha256: str
    """Of the file as it is on disk."""
    text_bytes: int
    characters: int
    documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class VocabularyFiles:
    """The vocabulary that the tokens are numbers of."""

    __pydantic_config__ = STRICT

    kind: str
    size: int
    lossless: bool
    """Decoding the tokens gives the text back exactly, where no symbol is unknown."""
    files: Mapping[str, str]
    """File under the data set → sha256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitData:
    """One split, whole: its text and its tokens."""

    __pydantic_config__ = STRICT

    documents: int
    text: str
    """UTF-8 file under the data set."""
    text_sha256: str
    bytes: int
    """Of the text in UTF-8."""
    characters: int
    """Unicode characters of the text: what bits per character counts."""
    tokens_file: str
    """Token file under the data set: `tokens` numbers of `dtype`, little-endian, nothing else."""
    tokens_sha256: str
    dtype: str
    tokens: int
    parts: tuple[int, ...]
    """Tokens of each part that was serialised on its own, in the order in which they were merged."""
    unknown_tokens: int
    unigram_entropy_bits_per_token: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """`manifest.json` of a data set: the four steps, split → vocabulary → serialise → merge."""

    __pydantic_config__ = STRICT

    format_version: int = FORMAT_VERSION
    settings: Settings
    inputs: tuple[InputFile, ...]
    assignment: str
    """How documents came into splits: `files`, `hash` or `ordered`, and why."""
    vocabulary: VocabularyFiles
    splits: Mapping[str, SplitData]


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a data set. Raises DataError when there is none, or none that this version reads."""
    path = directory / FILE_NAME
    if not path.exists():
        what = "holds no manifest.json, so it is no prepared data set" if directory.exists() else "no such directory"
        raise DataError(f"{directory}: {what}", hint=f"txlplan data prepare INPUT... --output {directory}")
    raw = read_json(path)
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise DataError(
            f"{path}: format_version {version!r}, this txlplan reads {FORMAT_VERSION}",
            hint="update txlplan" if newer else "prepare the data again",
        )
    try:
        return from_plain(Manifest, raw, str(path))
    except ConfigError as error:
        raise DataError(error.message, hint="the manifest was edited or damaged: prepare the data again") from None


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain values as JSON, atomically."""
    write_text(path, json.dumps(to_plain(value), ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises DataError that names the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}", hint="prepare the data again") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path}: not a JSON object", hint="prepare the data again")
    return raw
