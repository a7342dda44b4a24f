"""Step 3, serialise: text into token files, part by part, on all cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from txlplan.data._build import load_vocabulary
from txlplan.data._parallel import Advance, run
from txlplan.data._parts import Part, parts_of
from txlplan.data._progress import Progress
from txlplan.data._text import file_blocks
from txlplan.data._vocabulary import Vocabulary
from txlplan.files import replacing

DIRECTORY = "serialise"

_loaded: dict[Path, Vocabulary] = {}
"""The vocabulary of this process: a worker reads it once, not once a part."""


@dataclass(frozen=True, slots=True)
class _Task:
    part: Part
    vocabulary: Path
    output: Path


def serialise(
    texts: dict[str, Path], vocabulary: Path, directory: Path, processes: int, progress: Progress
) -> dict[str, list[Path]]:
    """Token files of the parts of each split, in order. Parts that an interrupted run left whole are kept."""
    outputs: dict[str, list[Path]] = {}
    tasks: list[_Task] = []
    for split, text in texts.items():
        parts = parts_of(text)
        outputs[split] = [directory / split / f"{number:06d}.tokens" for number in range(len(parts))]
        tasks += [_Task(part, vocabulary, output) for part, output in zip(parts, outputs[split], strict=True)]
    missing = [task for task in tasks if not task.output.exists()]
    total = sum(task.part.end - task.part.begin for task in missing)
    progress.begin("serialise", total)
    _loaded.clear()
    for _ in run(_serialise_part, missing, total, processes, progress):
        pass
    _loaded.clear()
    progress.finish()
    return outputs


def _serialise_part(task: _Task, advance: Advance) -> None:
    if task.vocabulary not in _loaded:
        _loaded[task.vocabulary] = load_vocabulary(task.vocabulary)
    vocabulary = _loaded[task.vocabulary]
    with replacing(task.output) as temporary, temporary.open("wb") as stream:
        for block in file_blocks(task.part.path, task.part.begin, task.part.end):
            stream.write(vocabulary.encode_utf8(block).tobytes())
            advance(len(block))
