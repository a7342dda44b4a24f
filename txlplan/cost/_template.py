"""The op stream of one layout as a function of the micro-batch, and the parts that pipeline stages are made of.

Where every figure of a stream is a + b·B in the number B of sequences, it is written down once for a layout and then costs a
multiplication and an addition for each micro-batch. Where it is not (a loss in chunks) it is written down for every micro-batch
and kept.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from txlplan.choices import Checkpointing, Precision
from txlplan.cost._build import Settings, begun_with_bytes, build
from txlplan.cost._compiled_layer import COMPILED_SCORES
from txlplan.cost._ends import MEMORY
from txlplan.cost._layer import FEED_FORWARD, SCORES, VALUES
from txlplan.cost._op_stream import FIGURES, FloatArray, OpStream
from txlplan.cost._update import UNSCALING
from txlplan.hardware import PRODUCTS

Rows = npt.NDArray[np.int64]
PARTS = (
    "embedding",
    "layers",
    "before memory",
    "memory",
    "loss",
    "loss backward",
    "layers backward",
    "embedding backward",
    "accumulation",
    "update",
)
"""Runs of operations in the order in which they run; a stage of a pipeline has some of them, and so many layers."""
_SELECTED = {"attention": (SCORES, VALUES), "feed-forward": (FEED_FORWARD,)}
_TILED_AGAIN = (
    "position scores",
    "content scores",
    "operands made dense",
    "score mask",
    "attention softmax",
    "attention dropout mask",
    COMPILED_SCORES,
)
"""What the backward of tiled attention runs again: probabilities, a tile at a time, and the draws of dropout."""
_LIKE: dict[Precision, Precision] = {"tf32": "fp32", "bf16": "fp16"}
"""What differs is what products (and in bf16 whatever is narrow) compute in, and that gradients of fp16 are unscaled. The
published code keeps parameters in fp16, and nothing in bf16."""
_PROBES = np.array([1.0, 2.0, 16381.0])
_KEPT = 256
"""Templates, and micro-batches that one of them writes down and keeps at once."""


class Template:
    """The stream of one micro-batch of a layout, without checkpointing: that is applied to the parts."""

    def __init__(self, settings: Settings, micro_batch: FloatArray = _PROBES) -> None:
        """Write the stream down, at probes and at the micro-batches that are wanted first."""
        self.settings = replace(settings, checkpointing="none")
        self._known: dict[float, int] = {}
        self._written = self._write(np.concatenate([_PROBES, micro_batch]))

    def alike(self, settings: Settings) -> Template:
        """That of the same settings in the precision that is like this one's, see `_LIKE`."""
        found, written = Template.__new__(Template), self._written
        found.settings, found._known = replace(settings, checkpointing="none"), dict(self._known)
        computed, precision = self.settings.precision, settings.precision
        if precision == "tf32":
            named = zip(written.kinds, written.dtypes, strict=True)
            dtypes = [precision if kind in PRODUCTS else dtype for kind, dtype in named]
        else:
            dtypes = [precision if dtype == computed else dtype for dtype in written.dtypes]
        found._written = replace(written, dtypes=tuple(dtypes)).without(UNSCALING)
        return found

    @property
    def labels(self) -> OpStream:
        """The stream, for its names."""
        return self._written

    def stream(self, micro_batch: FloatArray) -> OpStream:
        """At these micro-batches, [ops, candidates]."""
        if self._affine:
            figures = {name: base + slope * micro_batch for name, (base, slope) in self._coefficients.items()}
            return self._written.with_figures(figures)
        missing = micro_batch[[size not in self._known for size in micro_batch.tolist()]]
        if missing.size > _KEPT:
            return build(self.settings, micro_batch)
        if missing.size:
            self._write(missing)
        columns = [self._known[size] for size in micro_batch.tolist()]
        return self._written.with_figures({name: getattr(self._written, name)[:, columns] for name in FIGURES})

    def _write(self, micro_batch: FloatArray) -> OpStream:
        """Write down, and keep beside what is known."""
        written = build(self.settings, micro_batch)
        if self._known:
            known = self._written
            written = written.with_figures(
                {name: np.concatenate([getattr(known, name), getattr(written, name)], axis=1) for name in FIGURES}
            )
        before = written.flops.shape[1] - micro_batch.size
        for column, size in enumerate(micro_batch.tolist(), start=before):
            self._known.setdefault(size, column)
        self._written = written
        return written

    @cached_property
    def _coefficients(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        figures = {name: getattr(self._written, name) for name in FIGURES}
        slopes = {name: figure[:, 1:2] - figure[:, :1] for name, figure in figures.items()}
        return {name: (figure[:, :1] - slopes[name], slopes[name]) for name, figure in figures.items()}

    @cached_property
    def _affine(self) -> bool:
        return all(
            np.allclose(base[:, 0] + slope[:, 0] * _PROBES[2], getattr(self._written, name)[:, 2], rtol=1e-9)
            for name, (base, slope) in self._coefficients.items()
        )

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Rows of each part, in order."""
        parts = [_part(self.labels, row) for row in range(len(self.labels))]
        return {name: np.array([row for row, part in enumerate(parts) if part == name], dtype=np.int64) for name in PARTS}

    @cached_property
    def optimizer_rows(self) -> Rows:
        """Of the update: the optimizer itself, without clipping and unscaling."""
        update = self.rows["update"]
        return update[[self.labels.names[row] == self.settings.optimization.optimizer for row in update]]

    def again(self, kind: Checkpointing) -> Rows:
        """Forward rows of a layer that run again in backward."""
        rows = self.rows["layers"]
        if kind == "full":
            own = np.array([self.labels.kinds[row] == "linear" for row in rows])
            kept = np.flatnonzero((self._written.saved_bytes[rows] > 0).any(axis=1) | own)
            return rows[1 : 1 + kept[-1]]
        if kind == "none":
            return rows[:0]
        if kind == "attention" and self.settings.implementation == "fast":
            return rows[[self.labels.names[row] in _TILED_AGAIN and self.labels.groups[row] == SCORES for row in rows]]
        chosen = np.flatnonzero([self.labels.groups[row] in _SELECTED[kind] for row in rows])
        if self.settings.implementation == "fused" and kind == "attention":
            return rows[chosen[0] : chosen[-1] + 1]
        if chosen.size and self.settings.own_linear:
            last = max(row for row in chosen if self.labels.kinds[rows[row]] == "linear")
            return rows[chosen[0] : last + 1]
        again = rows[chosen[0] : chosen[-1]] if chosen.size else rows[:0]
        if self.settings.implementation == "reference":
            # torch's checkpoint ends as soon as it has what backward wants: the last product is not run again.
            return again[[self.labels.names[row] != "weighted values" for row in again]]
        return again

    def place_of_again(self, kind: Checkpointing) -> int:
        """How many rows of a layer's backward run before the forward runs again: it waits until it is needed."""
        if kind == "none":
            return 0
        if kind == "full":
            return int(self.settings.implementation != "published")  # after the note that the gradient of its output waits
        groups = [self.labels.groups[row] for row in self.rows["layers backward"]]
        return next((place for place, group in enumerate(groups) if group in _SELECTED[kind]), 0)

    def boundary(self, kind: Checkpointing, stream: OpStream) -> FloatArray:
        """Bytes that a checkpointed layer keeps to start again from, beside what is kept anyway. [candidates]"""
        names = self.labels.names
        if kind == "full":
            return begun_with_bytes(self.settings, stream.m[names.index("attention output")])
        if kind == "attention" and self.settings.implementation != "fast":
            # The fused kernel keeps its own result, which the next product wants too: as many elements as the queries.
            fused = self.settings.implementation == "fused"
            products = ("queries", "queries", "positions") if fused else ("q k v", "positions")
            elements = [stream.m[row] * stream.n[row] for row in map(names.index, products)]
            joined: FloatArray = sum(elements) * self.settings.numbers.compute
            return joined
        if kind == "feed-forward" and "inner" in names:
            inner, numbers = names.index("inner"), self.settings.numbers
            if numbers.narrows and not self.settings.own_norm:
                # As normed, instead of what products keep of that.
                widened: FloatArray = stream.m[inner] * stream.k[inner] * (numbers.residual - numbers.compute)
                return widened
            kept: FloatArray = stream.saved_bytes[inner]
            return kept
        return np.zeros(stream.flops.shape[1])

    def note(self, name: str) -> int | None:
        """The row of a note about memory, which takes no time; None where there is none."""
        pairs = zip(self.labels.names, self.labels.launches[:, 0], strict=True)
        return next((row for row, (other, launches) in enumerate(pairs) if other == name and launches == 0), None)


def _part(stream: OpStream, row: int) -> str | None:
    section, group = stream.sections[row], stream.groups[row]
    if section == "softmax":
        if group == MEMORY:
            return None if stream.launches[row, 0] == 0 else "memory"
        before = "new memory" in stream.names[row:]
        return "before memory" if before else "loss"
    return {"softmax backward": "loss backward", "old memory": None}.get(section, section)


def _is_like(settings: Settings, other: Settings) -> bool:
    """Whether the same operations run in the precision of `other`: published code has its own, some pack weights, some widen
    logits in no operation of its own."""
    published = settings.implementation == "published" and other.precision != "fp32"
    return not published and settings.packs == other.packs and settings.widens_logits == other.widens_logits


_TEMPLATES: dict[Settings, Template] = {}


def template(settings: Settings, micro_batch: FloatArray) -> Template:
    """The template of some settings, written down once; `micro_batch`: what it will be asked for first."""
    if settings not in _TEMPLATES:
        if len(_TEMPLATES) >= _KEPT:
            _TEMPLATES.clear()
        like = _LIKE.get(settings.precision)
        if like is not None and _is_like(settings, replace(settings, precision=like)):
            _TEMPLATES[settings] = template(replace(settings, precision=like), micro_batch).alike(settings)
        else:
            _TEMPLATES[settings] = Template(settings, micro_batch[:_KEPT])
    return _TEMPLATES[settings]
