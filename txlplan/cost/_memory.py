"""Peak memory of one device: a walk over the op stream that keeps account of what is alive.

What stays (parameters, optimizer states, recurrent memory, copies of weights) is added to the walk's peak. Within the walk,
forward keeps activations, backward gives them back and leaves gradients behind, and every operation has its inputs and
outputs around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._op_stream import FloatArray, OpStream, summed


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """What is alive at the walk's highest point, bytes [candidates], and which operation runs there."""

    saved_bytes: FloatArray
    gradient_bytes: FloatArray
    transient_bytes: FloatArray
    row: npt.NDArray[np.int64]

    @property
    def total_bytes(self) -> FloatArray:
        """Everything that the walk accounts for."""
        return self.saved_bytes + self.gradient_bytes + self.transient_bytes


def walk(stream: OpStream, *, gradients_exist: bool) -> Peak:
    """The highest point of one micro-batch followed by the update.

    `gradients_exist`: every gradient is already there (the second micro-batch of an accumulation, or buckets kept by
    data parallelism); each new one then lives beside it only until it is added.
    """
    candidates = stream.flops.shape[1]
    saved, gradients = np.zeros(candidates), np.zeros(candidates)
    if gradients_exist:
        gradients = stream.total(stream.gradient_bytes, "backward")
    best = Peak(
        saved_bytes=saved,
        gradient_bytes=gradients,
        transient_bytes=np.zeros(candidates),
        row=np.zeros(candidates, dtype=np.int64),
    )
    for first, last in _sections(stream):
        rows = slice(first, last)
        kept = stream.saved_bytes[rows]
        left = np.zeros_like(kept) if gradients_exist else stream.gradient_bytes[rows]
        around = stream.transient_bytes[rows] + (stream.gradient_bytes[rows] if gradients_exist else 0.0)
        repeat = stream.repeat[first]
        for done in (np.zeros(candidates), repeat - 1):
            during = Peak(
                saved_bytes=saved + done * summed(kept) + np.cumsum(kept, axis=0) - np.minimum(kept, 0.0),
                gradient_bytes=gradients + done * summed(left) + np.cumsum(left, axis=0),
                transient_bytes=around,
                row=np.broadcast_to(np.arange(first, last)[:, None], kept.shape),
            )
            best = _higher(best, during)
        saved = saved + repeat * summed(kept)
        gradients = gradients + repeat * summed(left)
    return best


def _sections(stream: OpStream) -> list[tuple[int, int]]:
    """Bounds of the runs of operations that repeat together."""
    starts = [row for row in range(len(stream)) if row == 0 or stream.sections[row] != stream.sections[row - 1]]
    return list(zip(starts, [*starts[1:], len(stream)], strict=True))


def _higher(best: Peak, during: Peak) -> Peak:
    """The higher of the best so far [candidates] and the highest of some operations [ops, candidates]."""
    columns = np.arange(best.row.size)
    top = during.total_bytes.argmax(axis=0)
    higher = during.total_bytes[top, columns] > best.total_bytes
    return Peak(
        saved_bytes=np.where(higher, during.saved_bytes[top, columns], best.saved_bytes),
        gradient_bytes=np.where(higher, during.gradient_bytes[top, columns], best.gradient_bytes),
        transient_bytes=np.where(higher, during.transient_bytes[top, columns], best.transient_bytes),
        row=np.where(higher, during.row[top, columns], best.row),
    )
