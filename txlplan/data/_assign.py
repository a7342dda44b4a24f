"""Step 1b, which text goes into which split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from txlplan.data._scan import DOCUMENT, Scan
from txlplan.data._settings import SPLITS, Settings
from txlplan.data._text import cut_before

_ENOUGH_DOCUMENTS = 5
"""Documents that each split must expect, for `auto` to draw whole documents."""
_ROWS = 1 << 16
_BINS = 1 << 16
_LOOK_BACK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes `begin` to `end` of one input's text go into a split; `documents` of them begin there."""

    scan: Scan
    begin: int
    end: int
    split: str
    documents: int


def assign(scans: Sequence[Scan], settings: Settings) -> tuple[str, Iterator[Run]]:
    """How the text is divided (in words, for the manifest) and the runs in the order of the text."""
    if any(scan.file.split for scan in scans):
        return "files: as given", _by_file(scans)
    documents = sum(scan.file.documents for scan in scans)
    expected = min(ratio for ratio in settings.ratios if ratio > 0) * documents
    if settings.assignment == "hash":
        return "hash: as set", _by_hash(scans, settings.ratios)
    if settings.assignment == "auto" and expected >= _ENOUGH_DOCUMENTS:
        why = f"hash: of {documents} documents the smallest split expects {expected:.1f}"
        return why, _by_hash(scans, settings.ratios)
    why = "as set" if settings.assignment == "ordered" else f"{documents} documents are too few to draw"
    return f"ordered: {why}", _in_order(scans, settings.ratios)


def _by_file(scans: Sequence[Scan]) -> Iterator[Run]:
    for scan in scans:
        yield Run(scan, 0, scan.file.text_bytes, scan.file.split or "train", scan.file.documents)


def _by_hash(scans: Sequence[Scan], ratios: Sequence[float]) -> Iterator[Run]:
    """Each document's draw in [0, 1) falls into the share of one split; neighbours in one split make one run."""
    edges = _edges(scans, ratios)
    for scan in scans:
        begin = 0
        for rows in _tables(scan):
            numbers = np.searchsorted(edges, rows["draw"], side="right")
            ends = begin + np.cumsum(rows["bytes"])
            last = np.flatnonzero(np.append(np.diff(numbers) != 0, True))
            first = np.concatenate(([0], last[:-1] + 1))
            for low, high in zip(first, last, strict=True):
                yield Run(scan, begin, int(ends[high]), SPLITS[numbers[high]], int(high - low + 1))
                begin = int(ends[high])


def _edges(scans: Sequence[Scan], ratios: Sequence[float]) -> np.ndarray:
    """The draws that divide the splits, shape [2]: such that the documents below them hold the wanted share of all bytes."""
    held = np.zeros(_BINS)
    for scan in scans:
        for rows in _tables(scan):
            held += np.bincount((rows["draw"] * _BINS).astype(np.int64), weights=rows["bytes"], minlength=_BINS)
    share_below = np.concatenate(([0.0], np.cumsum(held))) / held.sum()
    return np.array([np.argmin(np.abs(share_below - share)) for share in np.cumsum(ratios)[:-1]]) / _BINS


def _in_order(scans: Sequence[Scan], ratios: Sequence[float]) -> Iterator[Run]:
    """The text is cut at the shares of its bytes: train first, then valid, then test."""
    total = sum(scan.file.text_bytes for scan in scans)
    least = min(ratio for ratio in ratios if ratio > 0) * total
    cuts = [_cut(scans, share * total, least) if share < 1 else total for share in np.cumsum(ratios)[:-1]]
    offset = 0
    for scan in scans:
        size = scan.file.text_bytes
        edges = [0, *(min(max(cut - offset, 0), size) for cut in cuts), size]
        for split, begin, end in zip(SPLITS, edges[:-1], edges[1:], strict=True):
            if end > begin:
                yield Run(scan, begin, end, split, _documents_between(scan, begin, end))
        offset += size


def _cut(scans: Sequence[Scan], target: float, least: float) -> int:
    """The document boundary nearest to `target`, or a line's start where that is a tenth of the smallest split away."""
    best, offset = 0, 0
    for scan in scans:
        begin = offset
        for rows in _tables(scan):
            ends = begin + np.cumsum(rows["bytes"])
            nearest = int(ends[np.argmin(np.abs(ends - target))])
            best = nearest if abs(nearest - target) < abs(best - target) else best
            begin = int(ends[-1])
        offset += scan.file.text_bytes
    return best if abs(best - target) <= least / 10 else _line_near(scans, round(target))


def _line_near(scans: Sequence[Scan], target: int) -> int:
    """Where to cut inside a document: after the last newline before `target`, else before a space or a character."""
    offset = 0
    for scan in scans:
        if target < offset + scan.file.text_bytes:
            return offset + _cut_in(scan.text, target - offset)
        offset += scan.file.text_bytes
    return offset


def _cut_in(path: Path, target: int) -> int:
    begin = max(0, target - _LOOK_BACK_BYTES)
    with path.open("rb") as stream:
        stream.seek(begin)
        data = stream.read(target - begin)
    return begin + cut_before(data, len(data))


def _documents_between(scan: Scan, begin: int, end: int) -> int:
    count, at = 0, 0
    for rows in _tables(scan):
        starts = at + np.cumsum(rows["bytes"]) - rows["bytes"]
        count += int(np.count_nonzero((starts >= begin) & (starts < end)))
        at = int(starts[-1] + rows["bytes"][-1])
    return count


def _tables(scan: Scan) -> Iterator[np.ndarray]:
    """The document table, some rows at a time."""
    with scan.table.open("rb") as stream:
        while data := stream.read(_ROWS * DOCUMENT.itemsize):
            yield np.frombuffer(data, DOCUMENT)
