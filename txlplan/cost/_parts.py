"""What the parts of a stage take on one device: seconds, launches and memory, for some micro-batches of one layout.

A part (`_template.PARTS`) is computed once for a micro-batch; stages of a pipeline, checkpointed layers and copies of the
model are then sums of parts, so that plans which share them cost little more than their arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from txlplan.choices import Checkpointing
from txlplan.cost._op_stream import FloatArray, OpStream, summed
from txlplan.cost._section import AUTOCAST_COPY
from txlplan.cost._template import Rows, Template
from txlplan.cost._time import StepTime

AGAIN = "again"
FORWARD = ("embedding", "layers", "before memory", "memory", "loss")
BACKWARD = ("loss backward", AGAIN, "layers backward", "embedding backward")
"""Parts of the regions of a micro-batch; `AGAIN` is what a checkpointed layer runs a second time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """Of one repetition of a part, [micro-batches]."""

    device_s: FloatArray
    launches: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Memory over one repetition of a part, bytes [micro-batches]: what it leaves, and its highest point above its start."""

    saved_bytes: FloatArray
    gradient_bytes: FloatArray
    top_saved_bytes: FloatArray
    top_gradient_bytes: FloatArray
    top_transient_bytes: FloatArray
    row: npt.NDArray[np.int64]
    """Operation at the highest point."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Of a layout at some micro-batches, all without checkpointing; what runs again is told by `again`."""

    template: Template
    micro_batch: FloatArray
    stream: OpStream
    time: StepTime
    _turns: dict[tuple[Checkpointing, bool], Run] = field(default_factory=dict)
    _stacked: dict[tuple[str, Checkpointing], FloatArray] = field(default_factory=dict)

    def seconds(self, part: str) -> Seconds:
        """Of a part of `PARTS`."""
        return self._seconds[part]

    @cached_property
    def _seconds(self) -> dict[str, Seconds]:
        return {name: self._sum(rows) for name, rows in self.template.rows.items()}

    def _sum(self, rows: Rows) -> Seconds:
        return Seconds(device_s=summed(self.time.op_s[rows]), launches=summed(self.stream.dispatched[rows]))

    def stacked(self, region: Literal["forward", "backward"], kind: Checkpointing) -> FloatArray:
        """Device seconds of a region's parts, as `FORWARD` or `BACKWARD` has them, and operations that the host dispatches,
        [2, parts, micro-batches].

        `kind`: of what a checkpointed layer runs a second time.
        """
        if (region, kind) not in self._stacked:
            names = FORWARD if region == "forward" else BACKWARD
            seconds = [self._sum(self.template.again(kind)) if name == AGAIN else self.seconds(name) for name in names]
            dispatched = [
                each.launches * (0.0 if self.template.settings.captured and "layers" in name else 1.0)
                for name, each in zip(names, seconds, strict=True)
            ]
            self._stacked[region, kind] = np.array([[each.device_s for each in seconds], dispatched])
        return self._stacked[region, kind]

    @cached_property
    def optimizer(self) -> Seconds:
        """The optimizer itself, without clipping and unscaling."""
        return self._sum(self.template.optimizer_rows)

    @cached_property
    def inputs_bytes(self) -> FloatArray:
        """A layer's input, held for the new memory; none where keys and values are kept instead."""
        return self._noted("layer input")

    @cached_property
    def memory_bytes(self) -> FloatArray:
        """Recurrent memory of all layers, of which there are two for a while."""
        return -self._noted("old memory")

    @cached_property
    def cached_bytes(self) -> FloatArray:
        """Copies of a layer's weights that nothing but autocast holds, until the forward pass ends."""
        return self._noted("casts cached") / self.template.settings.model.n_layer

    def cast_bytes(self, kind: Checkpointing) -> FloatArray:
        """Copies of a layer's weights that autocast alone holds where the layer, or the part of it of this kind, runs again."""
        names, rows = self.template.labels.names, self.template.again(kind)
        return summed(self.stream.saved_bytes[[row for row in rows if names[row].endswith(AUTOCAST_COPY)]])

    def _noted(self, name: str) -> FloatArray:
        row = self.template.note(name)
        nothing = np.zeros(self.stream.saved_bytes.shape[1])
        return nothing if row is None else self.stream.saved_bytes[row]

    @cached_property
    def trains(self) -> bool:
        """Whether there is a backward."""
        return "backward" in self.stream.phases

    def turns(self, kind: Checkpointing, *, gradients_exist: bool) -> Run:
        """Memory over the parts in the order in which a stage runs them, [turns, micro-batches]; where some layers checkpoint
        (`kind`), these come first in forward, and after the others in backward."""
        key = (kind, gradients_exist)
        if key not in self._turns:
            again: list[tuple[str, Checkpointing]] = [] if kind == "none" else [("layers", kind)]
            ordered: list[tuple[str, Checkpointing]] = [("embedding", "none"), *again]
            ordered += [(part, "none") for part in ("layers", "before memory", "memory", "loss")]
            if self.trains:
                ordered += [("loss backward", "none"), ("layers backward", "none")]
                ordered += [("layers backward", kind) for _ in again]
                ordered += [("embedding backward", "none"), ("update", "none")]
            runs = [self._walked(part, of, gradients_exist) for part, of in ordered]
            figures = {each.name: np.array([getattr(run, each.name) for run in runs]) for each in fields(Run)}
            self._turns[key] = Run(**figures)
        return self._turns[key]

    def _walked(self, part: str, kind: Checkpointing, gradients_exist: bool) -> Run:
        rows, stream = self.template.rows[part], self.stream
        saved, around = stream.saved_bytes[rows], stream.transient_bytes[rows]
        released: FloatArray | float = 0.0
        if kind != "none" and part == "layers":
            saved, around = self._forgetting(saved, around, kind)
        if kind != "none" and part == "layers backward":
            place, again = self.template.place_of_again(kind), self.template.again(kind)
            rows = np.concatenate([rows[:place], again, rows[place:]])
            saved, around = stream.saved_bytes[rows], stream.transient_bytes[rows]
            around[place : place + again.size] -= self._held_twice(kind)
            released = self.template.boundary(kind, stream)
            if kind == "full" and self.template.settings.keeps_inputs:
                saved[place] -= self.inputs_bytes
            elif kind == "full":
                released = released + self.inputs_bytes
        gradients = stream.gradient_bytes[rows]
        if gradients_exist:
            around, gradients = around + gradients, np.zeros_like(gradients)
        return _run(rows, saved, gradients, around, released)

    def _forgetting(self, saved: FloatArray, around: FloatArray, kind: Checkpointing) -> tuple[FloatArray, FloatArray]:
        """What is kept by operations that run again lives around them and no longer."""
        again = np.isin(self.template.rows["layers"], self.template.again(kind))[:, None]
        kept, beside = np.where(again, 0.0, saved), np.where(again, around + saved - self._held_twice(kind), around)
        kept[0] += self.template.boundary(kind, self.stream)
        return kept, beside

    def _held_twice(self, kind: Checkpointing) -> FloatArray | float:
        """What the reference's attention starts again from its module holds anyway."""
        reference = self.template.settings.implementation == "reference"
        return self.template.boundary(kind, self.stream) if reference and kind == "attention" else 0.0

    @cached_property
    def gradient_bytes(self) -> dict[str, FloatArray]:
        """Gradients that a repetition of each part of the backward leaves."""
        rows = self.template.rows
        return {name: summed(self.stream.gradient_bytes[rows[name]]) for name in rows if name.endswith("backward")}


def _run(rows: Rows, saved: FloatArray, gradients: FloatArray, around: FloatArray, released: FloatArray | float) -> Run:
    if not rows.size:
        nothing = np.zeros(saved.shape[1])
        return Run(
            saved_bytes=nothing,
            gradient_bytes=nothing,
            top_saved_bytes=nothing,
            top_gradient_bytes=nothing,
            top_transient_bytes=nothing,
            row=np.zeros(saved.shape[1], dtype=np.int64),
        )
    levels, left = np.add.accumulate(saved, axis=0), np.add.accumulate(gradients, axis=0)
    top = (levels + left + around).argmax(axis=0)
    columns = np.arange(saved.shape[1])
    return Run(
        saved_bytes=levels[-1] - released,
        gradient_bytes=left[-1],
        top_saved_bytes=levels[top, columns],
        top_gradient_bytes=left[top, columns],
        top_transient_bytes=around[top, columns],
        row=rows[top],
    )
