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
from txlplan.cost._parts import Parts, Seconds
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
    none = np.zeros(column.shape)
    one = np.ones(column.shape)
    n_layer = layout.settings.model.n_layer
    if (pipeline == 1).all():
        return Stages(first=n_layer * one, inner=n_layer * one, last=n_layer * one)

    def alone(first: FloatArray, layers: FloatArray, last: FloatArray) -> FloatArray:
        stage = Stage(column=column, first=first, last=last, layers=layers, checkpointed=none)
        return stage_time(layout, parts, stage, none, one).total_s

    layer_s = np.maximum(alone(none, one, none), 1e-9)
    return split(n_layer, pipeline, virtual, alone(one, none, none), layer_s, alone(none, none, one))


def stage_time(layout: Layout, parts: Parts, stage: Stage, message_s: FloatArray, slower: FloatArray) -> StageTime:
    """One micro-batch in one kind of stage; `message_s` of all its messages, `slower` of its host. [candidates]"""
    column, share = stage.column, stage.layers / layout.settings.model.n_layer
    again = parts.again(layout.kind)

    def total(pairs: list[tuple[Seconds, FloatArray]], name: str) -> FloatArray:
        found = np.zeros(column.shape)
        for seconds, times in pairs:
            found = found + times * getattr(seconds, name)[column]
        return found

    forward = [
        (parts.seconds("embedding"), stage.first),
        (parts.seconds("layers"), stage.layers),
        (parts.seconds("before memory"), stage.last),
        (parts.seconds("memory"), share),
        (parts.seconds("loss"), stage.last),
    ]
    backward = [
        (parts.seconds("loss backward"), stage.last),
        (again, stage.checkpointed),
        (parts.seconds("layers backward"), stage.layers),
        (parts.seconds("embedding backward"), stage.first),
    ]
    device = [total(pairs, "device_s") for pairs in (forward, backward)]
    launches = [total(pairs, "launches") for pairs in (forward, backward)]
    repeated = stage.checkpointed if layout.kind == "full" else 0.0 * stage.checkpointed
    return StageTime(
        forward_device_s=device[0],
        backward_device_s=device[1],
        forward_launches=launches[0],
        backward_launches=launches[1],
        forward_s=parts.time.region_s("forward", device[0], launches[0], slower),
        backward_s=parts.time.region_s("backward", device[1], launches[1], slower),
        tensor_s=layout.tensor_s(parts, column, stage, repeated),
        context_s=layout.context_s(parts, column, stage, repeated),
        message_s=message_s,
    )
