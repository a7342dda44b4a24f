"""Time of the stages of a pipeline, and of a step that they make together.

A step of m micro-batches over p stages with one forward and one backward after another (1F1B: Narayanan et al. 2019, PipeDream)
takes, with t_i the time of a micro-batch in stage i,

    m · max t_i + (Σ t_i − max t_i) / v

exactly where stages are equal; where they are not, no more than that (a slow first stage hides some of what follows).
v interleaved parts of the layers on each device shorten what is filled and drained to a v-th, and send v times as many messages
(Narayanan et al. 2021, arXiv:2104.04473, §2.2: the bubble is (p − 1)/v · t where stages are equal). GPipe's schedule (Huang et
al. 2019, arXiv:1811.06965) takes as long and holds all m micro-batches; 1F1B holds p − i of them in stage i, interleaving
(2 (p − i − 1) + (v − 1) p + 1) / v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from txlplan.cost._layout import Layout
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._parts import Parts
from txlplan.cost._plans import IntArray
from txlplan.cost._stages import Stage, Stages, split


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """Of one micro-batch in one kind of stage, seconds [candidates]."""

    forward_device_s: FloatArray
    backward_device_s: FloatArray
    forward_launches: FloatArray
    backward_launches: FloatArray
    forward_s: FloatArray
    backward_s: FloatArray
    """Regions, with nothing between devices."""
    tensor_s: FloatArray
    """All-reduces of activations between the devices that share a layer."""
    context_s: FloatArray
    """Gathering of keys and values, and reducing of their gradients."""
    message_s: FloatArray
    """Messages to and from the neighbouring stages."""

    @property
    def compute_s(self) -> FloatArray:
        """Forward and backward."""
        return self.forward_s + self.backward_s

    @property
    def waited_s(self) -> FloatArray:
        """What the device waits for."""
        return self.tensor_s + self.context_s + self.message_s

    @property
    def total_s(self) -> FloatArray:
        """Compute and waiting."""
        return self.compute_s + self.waited_s


def stages_of(layout: Layout, parts: Parts, column: IntArray, pipeline: IntArray, virtual: IntArray) -> Stages:
    """Layers by stage, balanced by the time of a micro-batch without checkpointing. [candidates]"""
    n_layer = layout.settings.model.n_layer
    if (pipeline == 1).all():
        whole = np.full(column.shape, float(n_layer))
        return Stages(first=whole, inner=whole, last=whole)
    sizes = parts.micro_batch.size
    first, layers, last = np.repeat(np.eye(3), sizes, axis=1)  # the embedding alone, one layer, the loss
    none = np.zeros(3 * sizes)
    stage = Stage(column=np.tile(np.arange(sizes), 3), first=first, last=last, layers=layers, checkpointed=none)
    alone_s = stage_time(layout, parts, stage, none, none + 1).total_s.reshape(3, sizes)
    embedding_s, layer_s, loss_s = alone_s[:, column]
    return split(n_layer, pipeline, virtual, embedding_s, np.maximum(layer_s, 1e-9), loss_s)


def stage_time(layout: Layout, parts: Parts, stage: Stage, message_s: FloatArray, slower: FloatArray) -> StageTime:
    """One micro-batch in one kind of stage; `message_s` of all its messages, `slower` of its host. [candidates]"""
    column, share = stage.column, stage.layers / layout.settings.model.n_layer
    often_forward = np.array([stage.first, stage.layers, stage.last, share, stage.last])
    often_backward = np.array([stage.last, stage.checkpointed, stage.layers, stage.first])
    forward = (parts.stacked("forward", layout.kind)[:, :, column] * often_forward).sum(axis=1)
    backward = (parts.stacked("backward", layout.kind)[:, :, column] * often_backward).sum(axis=1)
    repeated = stage.checkpointed if layout.kind == "full" else 0.0 * stage.checkpointed
    return StageTime(
        forward_device_s=forward[0],
        backward_device_s=backward[0],
        forward_launches=forward[1],
        backward_launches=backward[1],
        forward_s=parts.time.region_s("forward", forward[0], forward[1], slower),
        backward_s=parts.time.region_s("backward", backward[0], backward[1], slower),
        tensor_s=layout.tensor_s(parts, column, stage, repeated),
        context_s=layout.context_s(parts, column, stage, repeated),
        message_s=message_s,
    )
