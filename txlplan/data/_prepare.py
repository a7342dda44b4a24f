"""`prepare`: split → vocabulary → serialise → merge, into a directory that is whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from txlplan.config import from_plain, to_plain
from txlplan.data import _build, _merge, _serialise, _split
from txlplan.data._inputs import STDIN, Source, find_sources
from txlplan.data._manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    InputFile,
    Manifest,
    SplitData,
    VocabularyFiles,
    read_json,
    read_manifest,
    write_json,
)
from txlplan.data._output import building, check_place, empty, finish_interrupted_move, move_into_place, remove_unfinished
from txlplan.data._parallel import core_count
from txlplan.data._progress import Progress
from txlplan.data._scan import Scan, scan
from txlplan.data._settings import Settings
from txlplan.data._split import SplitStep
from txlplan.data._vocabulary import Vocabulary
from txlplan.data._vocabulary_set import vocabulary_checksums, vocabulary_of, vocabulary_place
from txlplan.errors import DataError

_BEGUN = "begun.json"
_STEP = "step.json"
_READ = "read"
"""Under the partial directory: decompressed inputs and document tables, until the split is written."""


def prepare(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    valid: Sequence[str | Path] = (),
    test: Sequence[str | Path] = (),
    settings: Settings | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Make the data set `output` out of text files, directories, globs, gzip files or standard input (`-`).

    With `valid` or `test` files, `inputs` are the train split; else all text is divided by `settings.ratios`. Nothing
    is done when `output` is there already, made of the same inputs and settings; a run that was interrupted is picked
    up at its last whole step. Raises DataError for inputs that are missing, empty, damaged or not UTF-8.
    """
    settings, progress = settings or Settings(), progress or Progress()
    output = Path(output).expanduser().absolute()
    sources = find_sources(inputs, valid, test)
    check_place(output)
    try:
        with building(output) as partial:
            finish_interrupted_move(output)
            if (manifest := _unchanged(output, sources, settings)) is not None:
                shutil.rmtree(partial)
                progress.unchanged()
                return manifest
            _begin(partial, sources, settings)
            return _build_in(partial, output, sources, settings, processes or core_count(), progress)
    except OSError as error:
        raise DataError(
            f"{error.filename or output}: {error.strerror or error}", hint="is there space, and may you write?"
        ) from None


def _build_in(
    partial: Path, output: Path, sources: list[Source], settings: Settings, processes: int, progress: Progress
) -> Manifest:
    """All four steps in `partial`, then the whole of it onto `output`."""
    step = _split_step(partial, sources, settings, processes, progress)
    shutil.rmtree(partial / _READ, ignore_errors=True)
    if (known := _same_content(output, step.inputs, settings)) is not None:
        shutil.rmtree(partial)
        progress.unchanged()
        return known
    manifest = _tokens(partial, step, settings, processes, progress)
    for split in manifest.splits:
        shutil.rmtree(partial / _serialise.DIRECTORY / split)
    (partial / _BEGUN).unlink()
    write_json(partial / FILE_NAME, manifest)
    move_into_place(partial, output)
    return manifest


def _tokens(partial: Path, step: SplitStep, settings: Settings, processes: int, progress: Progress) -> Manifest:
    """Steps 2 to 4."""
    vocabulary = _vocabulary_step(partial, step, settings, processes, progress)
    directory = partial / _build.DIRECTORY
    texts = {name: partial / split.text for name, split in step.splits.items()}
    parts = _serialise.serialise(texts, directory, partial / _serialise.DIRECTORY, processes, progress)
    splits = _merge_step(partial, step, parts, vocabulary, progress)
    write_json(partial / _serialise.DIRECTORY / _STEP, {"dtype": vocabulary.dtype.name, "parts": _sizes(splits)})
    files = sorted(path for path in directory.iterdir() if path.name != _STEP)
    return Manifest(
        settings=settings,
        inputs=step.inputs,
        assignment=step.assignment,
        vocabulary=VocabularyFiles(
            kind=vocabulary.kind,
            size=vocabulary.size,
            lossless=vocabulary.lossless,
            files={f"{_build.DIRECTORY}/{path.name}": _merge.file_sha256(path) for path in files},
        ),
        splits=splits,
    )


def _sizes(splits: dict[str, SplitData]) -> dict[str, list[int]]:
    """Tokens of each part of each split."""
    return {name: list(split.parts) for name, split in splits.items()}


def _begin(partial: Path, sources: Sequence[Source], settings: Settings) -> None:
    """Keep what an interrupted run left, if it had the same inputs and settings; else start empty."""
    stamps = [_stamp(source) for source in sources]
    begun = {"format_version": FORMAT_VERSION, "settings": to_plain(settings), "sources": stamps}
    path = partial / _BEGUN
    if None in stamps or not path.exists() or read_json(path) != begun:
        empty(partial)
        write_json(path, begun)
    remove_unfinished(partial)


def _stamp(source: Source) -> list[str | int | None] | None:
    """What tells a changed file without reading it; None for standard input."""
    if source.name == STDIN:
        return None
    status = Path(source.name).stat()
    return [source.name, source.split, status.st_size, status.st_mtime_ns]


def _split_step(partial: Path, sources: list[Source], settings: Settings, processes: int, progress: Progress) -> SplitStep:
    directory = partial / _split.DIRECTORY
    if (directory / _STEP).exists():
        progress.picked_up("split")
        return from_plain(SplitStep, read_json(directory / _STEP), str(directory / _STEP))
    scans: list[Scan] = scan(sources, partial / _READ, settings.documents, processes, progress)
    step = _split.write_splits(scans, directory, settings, progress)
    write_json(directory / _STEP, step)
    return step


def _vocabulary_step(partial: Path, step: SplitStep, settings: Settings, processes: int, progress: Progress) -> Vocabulary:
    directory = partial / _build.DIRECTORY
    if (directory / _STEP).exists():
        progress.picked_up("vocabulary")
        return _build.load_vocabulary(directory)
    directory.mkdir(exist_ok=True)
    if settings.vocabulary_of is None:
        vocabulary = _build.build_vocabulary(partial / step.splits["train"].text, settings, processes, progress)
    else:
        vocabulary = vocabulary_of(Path(settings.vocabulary_of))
    vocabulary.save(directory)
    made_from = settings.vocabulary_of or "train"
    write_json(directory / _STEP, {"kind": vocabulary.kind, "size": vocabulary.size, "made_from": made_from})
    return vocabulary


def _merge_step(
    partial: Path, step: SplitStep, parts: dict[str, list[Path]], vocabulary: Vocabulary, progress: Progress
) -> dict[str, SplitData]:
    directory = partial / _merge.DIRECTORY
    progress.begin("merge", sum(part.stat().st_size for paths in parts.values() for part in paths))
    splits: dict[str, SplitData] = {}
    for name, text in step.splits.items():
        output = directory / f"{name}.tokens"
        merged = _merge.merge(parts[name], output, directory / f"{name}.counts.npy", vocabulary, progress)
        if not merged.tokens:
            raise DataError(f"the {name} split has {text.bytes} bytes of text but no {vocabulary.kind} in it")
        splits[name] = SplitData(
            documents=text.documents,
            text=text.text,
            text_sha256=text.text_sha256,
            bytes=text.bytes,
            characters=text.characters,
            tokens_file=f"{_merge.DIRECTORY}/{output.name}",
            tokens_sha256=merged.sha256,
            dtype=vocabulary.dtype.name,
            tokens=merged.tokens,
            parts=merged.parts,
            unknown_tokens=merged.unknown_tokens,
            unigram_entropy_bits_per_token=merged.entropy_bits,
        )
    progress.finish()
    return splits


def _unchanged(output: Path, sources: Sequence[Source], settings: Settings) -> Manifest | None:
    """The manifest of `output` if it was made of these inputs (by name, size, time, or else content) and settings."""
    manifest = _readable(output)
    if manifest is None or not _same_settings(manifest, settings) or len(manifest.inputs) != len(sources):
        return None
    pairs = zip(sources, manifest.inputs, strict=True)
    return manifest if all(_same_file(source, known) for source, known in pairs) else None


def _same_settings(manifest: Manifest, settings: Settings) -> bool:
    """Whether they are equal, and a vocabulary that was taken from elsewhere is still the same there."""
    if manifest.settings != settings or settings.vocabulary_of is None:
        return manifest.settings == settings
    return vocabulary_checksums(vocabulary_place(Path(settings.vocabulary_of))) == manifest.vocabulary.files


def _same_file(source: Source, known: InputFile) -> bool:
    if source.name == STDIN or (source.name, source.split) != (known.name, known.split):
        return False
    status = Path(source.name).stat()
    if status.st_size != known.size_bytes:
        return False
    return status.st_mtime_ns == known.modified_ns or _merge.file_sha256(Path(source.name)) == known.sha256


def _same_content(output: Path, inputs: Sequence[InputFile], settings: Settings) -> Manifest | None:
    """As `_unchanged`, of what was read: standard input can only be compared so."""
    manifest = _readable(output)
    if manifest is None or not _same_settings(manifest, settings):
        return None
    wanted = [(file.name, file.split, file.sha256) for file in inputs]
    return manifest if [(file.name, file.split, file.sha256) for file in manifest.inputs] == wanted else None


def _readable(output: Path) -> Manifest | None:
    try:
        manifest = read_manifest(output)
    except DataError:
        return None
    whole = all((output / split.tokens_file).exists() for split in manifest.splits.values())
    return manifest if whole else None
