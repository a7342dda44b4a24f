"""Stages of a pipeline: which layers each has, and the memory of the fullest moment on one of its devices.

A plan without a pipeline has one stage, which is first and last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """A part that runs `times` times, or, of what all layers have together, so large a share; then bytes are kept or given
    back. All [candidates]."""

    run: Run
    times: FloatArray
    then_bytes: FloatArray | float = 0.0


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
    cached = stage.layers * parts.cached_bytes[column] + kept * parts.cast_bytes[column]
    again = [] if kind == "none" else [(kind, stage.checkpointed)]

    def turn(part: str, times: FloatArray, then_bytes: FloatArray | float = 0.0, of: Checkpointing = "none") -> _Turn:
        return _Turn(run=parts.run(part, of, gradients_exist=gradients_exist), times=times, then_bytes=then_bytes)

    forward = [
        turn("embedding", stage.first),
        *(turn("layers", times, of=of) for of, times in again),
        turn("layers", plain),
        turn("before memory", stage.last),
        turn("memory", share, memory - (stage.layers - kept) * inputs + cached),
        turn("loss", stage.last, -np.where(remembered, 0.0, memory) - cached),
    ]
    if "backward" not in parts.stream.phases:
        return _highest(forward, column)[0], np.zeros(column.shape)
    backward = [
        turn("loss backward", stage.last),
        turn("layers backward", plain),
        *(turn("layers backward", times, of=of) for of, times in again),
        turn("embedding backward", stage.first),
        turn("update", np.ones(column.shape)),
    ]
    backward[-3] = replace(backward[-3], then_bytes=-np.where(remembered, memory, 0.0))
    peak, saved = _highest(forward + backward, column)
    return peak, saved[len(forward) - 1]


def _highest(turns: list[_Turn], column: IntArray) -> tuple[Peak, FloatArray]:
    """The first highest point, and what is saved after each turn, [turns, candidates]."""

    def figure(name: str) -> FloatArray:
        return np.array([getattr(turn.run, name) for turn in turns])[:, column]

    times, (saved, gradients) = np.array([turn.times for turn in turns]), map(figure, ("saved_bytes", "gradient_bytes"))
    then = np.array([np.broadcast_to(turn.then_bytes, column.shape) for turn in turns])
    share, repeated = np.minimum(times, 1.0), np.where(saved + gradients > 0, np.maximum(times - 1, 0.0), 0.0)
    after, left = np.add.accumulate(times * saved + then, axis=0), np.add.accumulate(times * gradients, axis=0)
    nothing = np.zeros((1, column.size))
    top_saved = np.concatenate([nothing, after[:-1]]) + repeated * saved + share * figure("top_saved_bytes")
    top_gradients = np.concatenate([nothing, left[:-1]]) + repeated * gradients + share * figure("top_gradient_bytes")
    transient = share * figure("top_transient_bytes")
    best = np.where(times > 0, top_saved + top_gradients + transient, -np.inf).argmax(axis=0), np.arange(column.size)
    peak = Peak(
        saved_bytes=top_saved[best],
        gradient_bytes=top_gradients[best],
        transient_bytes=transient[best],
        row=np.array([turn.run.row for turn in turns])[:, column][best],
    )
    return peak, after
