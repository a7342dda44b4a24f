"""Stages of a pipeline: which layers each has, and the memory of the fullest moment on one of its devices.

A plan without a pipeline has one stage, which is first and last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.choices import Checkpointing
from txlplan.cost._memory import Peak
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._parts import Parts, Run
from txlplan.cost._plans import IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """Layers of the first, of each inner (the larger, where they differ) and of the last stage, [candidates] each."""

    first: FloatArray
    inner: FloatArray
    last: FloatArray


def split(
    n_layer: int, stages: IntArray, virtual: IntArray, embedding_s: FloatArray, layer_s: FloatArray, loss_s: FloatArray
) -> Stages:
    """The split of the layers that makes the slowest stage as fast as it can be. All [candidates], seconds per micro-batch.

    The slowest stage takes one of 3 L times: some layers, alone or with the embedding or the loss. The least of them at which
    all stages together can take L layers is the answer, and what is left over is taken off the first stage, which holds the
    activations of most micro-batches. Interleaved stages are equal, as their schedule wants them.
    """
    counts = np.arange(1, n_layer + 1)
    layers_s = layer_s[:, None] * counts
    times_s = np.concatenate([layers_s, embedding_s[:, None] + layers_s, loss_s[:, None] + layers_s], axis=1)
    most = np.maximum(n_layer - stages + 1, 1)[:, None]

    def capacity(beside_s: FloatArray) -> FloatArray:
        room = np.floor((times_s * (1 + 1e-12) - beside_s[:, None]) / layer_s[:, None])
        return np.clip(room, 0, most)

    first, inner, last = capacity(embedding_s), capacity(0.0 * layer_s), capacity(loss_s)
    holds = (first >= 1) & (inner >= 1) & (last >= 1) & (first + last + (stages - 2)[:, None] * inner >= n_layer)
    best = np.where(holds, times_s, np.inf).argmin(axis=1)
    rows = np.arange(best.size)
    first, inner, last = first[rows, best], inner[rows, best], last[rows, best]
    surplus = first + last + (stages - 2) * inner - n_layer
    taken = np.minimum(surplus, first - 1)
    first, surplus = first - taken, surplus - taken
    taken = np.minimum(surplus, last - 1)
    last = last - taken
    inner = np.ceil((n_layer - first - last) / np.maximum(stages - 2, 1))
    whole, equal = stages == 1, virtual > 1
    even = n_layer / stages
    return Stages(
        first=np.where(whole | equal, even, first),
        inner=np.where(whole | equal, even, inner),
        last=np.where(whole | equal, even, last),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One kind of stage of some candidates. All [candidates]."""

    column: IntArray
    """Micro-batch of `Parts`."""
    first: FloatArray
    """1 where it has the embedding, else 0."""
    last: FloatArray
    """1 where it has the loss, else 0."""
    layers: FloatArray
    checkpointed: FloatArray
    """Of its layers, how many checkpoint."""


def stage_peak(
    parts: Parts, stage: Stage, kind: Checkpointing, *, gradients_exist: bool, n_layer: int
) -> tuple[Peak, FloatArray]:
    """The highest point of one micro-batch and the update, and what its forward keeps for its backward, [candidates].

    `gradients_exist`: all are there from the start, and are left to the caller.

    The walk of `_memory` over the parts that the stage has, each as often as it runs: the highest point of a repeated part is
    in its first or its last repetition. Checkpointed layers come first, so that they run again when the rest is given back.
    """
    column, share = stage.column, stage.layers / n_layer
    inputs, memory = parts.inputs_bytes[column], parts.memory_bytes[column] * share
    kept = stage.checkpointed if kind == "full" else 0.0 * stage.checkpointed
    remembered = (kept > 0) | parts.template.settings.keeps_memory
    plain = stage.layers - stage.checkpointed

    def run(part: str, of: Checkpointing = "none") -> Run:
        return parts.run(part, of, gradients_exist=gradients_exist)

    forward = _Walk(column)
    forward.repeat(run("embedding"), stage.first)
    if kind != "none":
        forward.repeat(run("layers", kind), stage.checkpointed)
    forward.repeat(run("layers"), plain)
    forward.repeat(run("before memory"), stage.last)
    forward.scale(run("memory"), share)
    cached = stage.layers * parts.cached_bytes[column] + kept * parts.cast_bytes[column]
    forward.add(memory - (stage.layers - kept) * inputs + cached)
    forward.repeat(run("loss"), stage.last)
    forward.add(-np.where(remembered, 0.0, memory) - cached)
    if "backward" not in parts.stream.phases:
        return forward.peak, np.zeros(column.shape)
    waiting = forward.saved
    forward.repeat(run("loss backward"), stage.last)
    forward.repeat(run("layers backward"), plain)
    if kind != "none":
        forward.repeat(run("layers backward", kind), stage.checkpointed)
    forward.add(-np.where(remembered, memory, 0.0))
    forward.repeat(run("embedding backward"), stage.first)
    forward.repeat(run("update"), np.ones(column.shape))
    return forward.peak, waiting


class _Walk:
    """What is alive, part by part, and the highest point so far."""

    def __init__(self, column: IntArray) -> None:
        self.saved = np.zeros(column.shape)
        self._gradients = np.zeros(column.shape)
        self._column = column
        self.peak = Peak(
            saved_bytes=self.saved, gradient_bytes=self.saved, transient_bytes=self.saved, row=np.zeros(column.shape, np.int64)
        )

    def add(self, saved_bytes: FloatArray) -> None:
        """Something is kept, or given back."""
        self.saved = self.saved + saved_bytes

    def repeat(self, run: Run, times: FloatArray) -> None:
        """A part that runs `times` times."""
        column = self._column
        saved, gradients = run.saved_bytes[column], run.gradient_bytes[column]
        done = np.where(saved + gradients > 0, np.maximum(times - 1, 0.0), 0.0)
        self._higher(
            self.saved + done * saved + run.top_saved_bytes[column],
            self._gradients + done * gradients + run.top_gradient_bytes[column],
            run.top_transient_bytes[column],
            run.row[column],
            times > 0,
        )
        self.saved = self.saved + times * saved
        self._gradients = self._gradients + times * gradients

    def scale(self, run: Run, share: FloatArray) -> None:
        """A part whose tensors are a share of those of all layers."""
        column = self._column
        self._higher(
            self.saved + share * run.top_saved_bytes[column],
            self._gradients,
            share * run.top_transient_bytes[column],
            run.row[column],
            share > 0,
        )
        self.saved = self.saved + share * run.saved_bytes[column]

    def _higher(
        self, saved: FloatArray, gradients: FloatArray, transient: FloatArray, row: IntArray, runs: npt.NDArray[np.bool_]
    ) -> None:
        best = self.peak
        higher = runs & (saved + gradients + transient > best.total_bytes)
        self.peak = Peak(
            saved_bytes=np.where(higher, saved, best.saved_bytes),
            gradient_bytes=np.where(higher, gradients, best.gradient_bytes),
            transient_bytes=np.where(higher, transient, best.transient_bytes),
            row=np.where(higher, row, best.row),
        )
