"""Stages of a pipeline: which layers each has, and the memory of the fullest moment on one of its devices.

A plan without a pipeline has one stage, which is first and last.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def stage_peak(
    parts: Parts, stage: Stage, kind: Checkpointing, *, gradients_exist: bool, n_layer: int
) -> tuple[Peak, FloatArray]:
    """The highest point of one micro-batch and the update, and what its forward keeps for its backward, [candidates].

    `gradients_exist`: all are there from the start, and are left to the caller.

    The walk of `_memory` over the parts that the stage has, each as often as it runs: the highest point of a repeated part is
    in its first or its last repetition. Checkpointed layers come first, so that they run again when the rest is given back.
    """
    column, share, last = stage.column, stage.layers / n_layer, stage.last
    inputs, memory = parts.inputs_bytes[column], parts.memory_bytes[column] * share
    kept = stage.checkpointed if kind == "full" else 0.0 * stage.checkpointed
    remembered = (kept > 0) | parts.template.settings.keeps_memory
    plain, again = stage.layers - stage.checkpointed, [] if kind == "none" else [stage.checkpointed]
    cached = stage.layers * parts.cached_bytes[column] + stage.checkpointed * parts.cast_bytes(kind)[column]
    times = [stage.first, *again, plain, last, share, last]
    turns, forward = parts.turns(kind, gradients_exist=gradients_exist), len(times)
    if parts.trains:
        times += [last, plain, *again, stage.first, np.ones(column.shape)]
    then_bytes = np.zeros((len(times), column.size))
    then_bytes[forward - 3] = cached
    then_bytes[forward - 2] = memory - (stage.layers - kept) * inputs
    then_bytes[forward - 1] = -np.where(remembered, 0.0, memory) - cached
    if parts.trains:
        then_bytes[-3] = -np.where(remembered, memory, 0.0)
    peak, saved = _highest(turns, np.array(times), then_bytes, column)
    return peak, saved[forward - 1] if parts.trains else np.zeros(column.shape)


def _highest(turns: Run, times: FloatArray, then_bytes: FloatArray, column: IntArray) -> tuple[Peak, FloatArray]:
    """The first highest point, and what is saved after each turn, [turns, candidates].

    Each part runs `times` times, or, of what all layers have together, so large a share; then bytes are kept or given back.
    """
    saved, gradients = turns.saved_bytes[:, column], turns.gradient_bytes[:, column]
    share, repeated = np.minimum(times, 1.0), np.where(saved + gradients > 0, np.maximum(times - 1, 0.0), 0.0)
    after, left = np.add.accumulate(times * saved + then_bytes, axis=0), np.add.accumulate(times * gradients, axis=0)
    top_saved = repeated * saved + share * turns.top_saved_bytes[:, column]
    top_gradients = repeated * gradients + share * turns.top_gradient_bytes[:, column]
    top_saved[1:] += after[:-1]
    top_gradients[1:] += left[:-1]
    transient = share * turns.top_transient_bytes[:, column]
    best = np.where(times > 0, top_saved + top_gradients + transient, -np.inf).argmax(axis=0), np.arange(column.size)
    peak = Peak(
        saved_bytes=top_saved[best],
        gradient_bytes=top_gradients[best],
        transient_bytes=transient[best],
        row=turns.row[best[0], column],
    )
    return peak, after
