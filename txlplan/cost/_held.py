"""How many parameters a device holds, by the stage of the pipeline that it is in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from txlplan.cost._op_stream import FloatArray
from txlplan.model import ModelConfig, parameter_count
from txlplan.model._parameters import layer_shapes, softmax_shapes, table_shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Parameters of one device, by where they are."""

    layer: float
    """Of one layer."""
    embedding: float
    """Tables, projections and whatever layers share."""
    softmax: float
    """Of the loss alone."""
    tables: float
    """Of the embedding tables, of which the last stage of a pipeline holds a copy where the softmax is tied to them."""
    model: float
    """Of all of it, without a pipeline."""

    def stage(self, layers: FloatArray, first: FloatArray, last: FloatArray) -> FloatArray:
        """Parameters of a stage, [candidates]."""
        copied = np.where((first == 0) & (last == 1), self.tables, 0.0)
        return layers * self.layer + first * self.embedding + last * self.softmax + copied

    def gathered(self, first: FloatArray, last: FloatArray) -> FloatArray:
        """Parameters of other devices that ZeRO stage 3 has gathered at once: two layers, or a layer beside an end."""
        ends = np.maximum(first * self.embedding, last * (self.softmax + self.tables))
        return self.layer + np.maximum(self.layer, ends)


@lru_cache(maxsize=256)
def counts(model: ModelConfig) -> Counts:
    """Of a model (a device's share of it, under tensor parallelism)."""
    layer, softmax, whole = _count(layer_shapes(model, "")), _count(softmax_shapes(model)), float(parameter_count(model))
    return Counts(
        layer=layer,
        embedding=whole - model.n_layer * layer - softmax,
        softmax=softmax,
        tables=float(sum(prod(shape) for shape in table_shapes(model))) if model.tie_weights else 0.0,
        model=whole,
    )


def _count(shapes: dict[str, tuple[int, ...]]) -> float:
    return float(sum(prod(shape) for shape in shapes.values()))
