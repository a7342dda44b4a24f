"""Peak memory of a training step as a caching allocator reserves it, by a model fitted to published peaks.

nvidia-smi shows what PyTorch's allocator has ever asked for: what is alive at the highest point, and blocks of other sizes
that are cached beside it. The walk of `_memory` gives the first; here the two that decide are counted in blocks, of the
size of the logits (alive) and of the largest parameter (temporaries of the optimizer, given back where memory is short).
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from txlplan.cost._build import Settings
from txlplan.cost._ends import SOFTMAX
from txlplan.cost._memory import Peak
from txlplan.cost._op_stream import FloatArray, OpStream
from txlplan.hardware import ReservedModel
from txlplan.model import parameter_shapes


def reserved_peak(stream: OpStream, column: npt.NDArray[np.int64], settings: Settings, reserved: ReservedModel) -> Peak:
    """What is alive and cannot be given back: activations, all gradients, blocks of logits. [candidates]"""
    softmax = np.array([group == SOFTMAX for group in stream.groups])[:, None]
    saved = stream.total(np.where(softmax, 0.0, stream.saved_bytes), "forward")
    loss = stream.total(np.where(softmax, stream.saved_bytes, 0.0), "forward")
    row = next(index for index, name in enumerate(stream.names) if name == "cluster 0 logits")
    logits = stream.m[row] * stream.n[row] * settings.numbers.compute
    half = reserved.logits_half_lamb if settings.optimization.optimizer == "lamb" else reserved.logits_half
    blocks = half if settings.numbers.compute < 4.0 else reserved.logits
    further = loss - logits if settings.model.n_clusters > 1 else np.zeros_like(loss)
    return Peak(
        saved_bytes=(reserved.saved * np.maximum(saved, 0.0) + np.maximum(further, 0.0))[column],
        gradient_bytes=stream.total(stream.gradient_bytes, "backward")[column],
        transient_bytes=(blocks * logits)[column],
        row=np.full(column.shape, row, dtype=np.int64),
    )


def cached_bytes(settings: Settings, reserved: ReservedModel) -> float:
    """Optimizer temporaries that stay cached, in bytes."""
    tables = reserved.tables_lamb if settings.optimization.optimizer == "lamb" else reserved.tables_adam
    largest: FloatArray | float = 4.0 * max(prod(shape) for shape in parameter_shapes(settings.sharded).values())
    return float(tables * largest)
