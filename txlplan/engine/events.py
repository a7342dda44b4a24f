"""What a worker tells its supervisor: one JSON object a line in `events.jsonl` of the run directory.

Rank 0 appends; a line is whole once its newline is there, so a reader may follow the file while it grows and a killed
worker loses at most an unfinished last line. No torch here: the launcher reads these without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from txlplan.config import from_plain, to_plain
from txlplan.config._schema import STRICT

FILE_NAME = "events.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The worker is set up; the next thing is the first step."""

    __pydantic_config__ = STRICT
    event: Literal["started"] = "started"
    process_id: int
    world_size: int
    step: int
    """Steps already done (0, or those of the checkpoint)."""
    total_steps: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One optimizer step (train) or segment batch (score) or token per sequence (generate) is done."""

    __pydantic_config__ = STRICT
    event: Literal["step"] = "step"
    step: int
    """Counted from 1, over the whole run, resumed parts included."""
    step_s: float
    tokens: int
    """Of this step, over all devices."""
    loss: float | None = None
    """Mean nats per token."""
    learning_rate: float | None = None
    memory_bytes: int | None = None
    """In use now, on the fullest device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluating:
    """A split is being scored, after the steps so far."""

    __pydantic_config__ = STRICT
    event: Literal["evaluating"] = "evaluating"
    step: int
    split: str
    segments: int
    """Of all rows, to be scored one after the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A split was scored."""

    __pydantic_config__ = STRICT
    event: Literal["evaluated"] = "evaluated"
    step: int
    split: str
    loss: float
    perplexity: float
    bits_per_character: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """A checkpoint is whole and on disk."""

    __pydantic_config__ = STRICT
    event: Literal["saved"] = "saved"
    step: int
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trying:
    """The steps that follow are of this plan, until the next such event."""

    __pydantic_config__ = STRICT
    event: Literal["trying"] = "trying"
    candidate: int
    """Its place in the list of plans, from 0."""
    steps: int
    """That will count, at most, after those that warm up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """How a plan's trial ended."""

    __pydantic_config__ = STRICT
    event: Literal["tried"] = "tried"
    candidate: int
    outcome: Literal["ok", "oom", "failed"]
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """Something that a person should know, and that ends nothing."""

    __pydantic_config__ = STRICT
    event: Literal["noted"] = "noted"
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """A piece of a row's text is certain; the pieces of a row in their order are its text."""

    __pydantic_config__ = STRICT
    event: Literal["streamed"] = "streamed"
    row: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """The whole text of a row, the next after the one of the last such event."""

    __pydantic_config__ = STRICT
    event: Literal["generated"] = "generated"
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The worker is done: well (`ok`), asked to stop (`stopped`), out of memory (`oom`), or `failed`."""

    __pydantic_config__ = STRICT
    event: Literal["finished"] = "finished"
    outcome: Literal["ok", "oom", "failed", "stopped"]
    message: str = ""
    peak_memory_bytes: int | None = None
    allocator_peak_bytes: int | None = None
    energy_j: float | None = None


Event = Started | Step | Evaluating | Evaluated | Saved | Trying | Tried | Noted | Streamed | Generated | Finished
_KINDS: dict[str, type[Event]] = {
    kind.__dataclass_fields__["event"].default: kind
    for kind in (Started, Step, Evaluating, Evaluated, Saved, Trying, Tried, Noted, Streamed, Generated, Finished)
}


def append(stream: TextIO, event: Event) -> None:
    """Write one event and flush it to the operating system."""
    stream.write(json.dumps(to_plain(event), allow_nan=False) + "\n")
    stream.flush()


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Whole events from byte `offset` on, and the offset to go on from. A missing file has none yet."""
    if not path.exists():
        return [], offset
    with path.open("rb") as stream:
        stream.seek(offset)
        tail = stream.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    return list(_parsed(whole, path)), offset + len(whole)


def _parsed(lines: bytes, path: Path) -> Iterator[Event]:
    for line in lines.splitlines():
        raw = json.loads(line)
        yield from_plain(_KINDS[raw["event"]], raw, str(path))
