"""Gradients and parameters between the devices that hold the same part of the model.

Without ZeRO, and with its stage 1, gradients are all-reduced once a step (or a micro-batch, as the stack does). Stage 2 reduces
and scatters them after every micro-batch and gathers parameters once a step; stage 3 gathers parameters for every forward and
every backward too (Rajbhandari et al. 2020, arXiv:1910.02054, §7: as many bytes, or half as many again). A reduce-scatter is
half an all-reduce, and so is an all-gather: parameters are gathered as they are kept, in as many bytes as their gradients, and
cast after that (FullyShardedDataParallel under autocast).

What is sent beside a backward, it hides up to the time that it takes itself, and of what is sent no more than the stack's
overlap; what is gathered for a forward, the forward hides in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._communication import exchange_s, overlap
from txlplan.cost._held import counts
from txlplan.cost._layout import Layout
from txlplan.cost._mesh import group_cluster, message_s
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._pipeline import StageTime
from txlplan.cost._plans import Plans
from txlplan.cost._statics import all_reduce_bytes
from txlplan.cost._updating import shards
from txlplan.hardware import StackProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """Of one step, [candidates]."""

    payload_bytes: FloatArray
    """Of one exchange of all gradients."""
    ranks: FloatArray
    times: FloatArray
    """How many all-reduces of the payload it amounts to."""
    communication_s: FloatArray
    """Hidden or not."""
    backwards: FloatArray
    """How many hide a part."""
    backward_s: FloatArray
    """What each of them hides at most."""
    forwards: FloatArray
    forward_s: FloatArray

    def ready_s(
        self,
        times: Sequence[StageTime],
        exist: npt.NDArray[np.bool_],
        accumulation: FloatArray,
        unattributed: float,
        stages_s: FloatArray,
    ) -> FloatArray:
        """`stages_s`, the time of all micro-batches in the slowest stage, less what is hidden of the exchange. [candidates]

        The stage that is ready last decides. A region of x seconds, which in n of m micro-batches hides up to s seconds, adds
        m · x − n · min(x, s): nothing that makes a region longer makes a step shorter, whichever stage is the slowest.
        """
        if not self.backward_s.any():
            return stages_s

        def adds(region_s: FloatArray, often: FloatArray, most_s: FloatArray) -> FloatArray:
            lasting_s = (1 + unattributed) * region_s
            return accumulation * lasting_s - often * np.minimum(lasting_s, most_s)

        each = [
            accumulation * time.waited_s
            + adds(time.forward_s, self.forwards, self.forward_s)
            + adds(time.backward_s, self.backwards, self.backward_s)
            for time in times
        ]
        return np.where(self.backward_s > 0, np.where(exist, each, 0.0).max(axis=0), stages_s)


def exchange(
    layout: Layout, stack: StackProfile, plans: Plans, share: FloatArray, pipelined: npt.NDArray[np.bool_]
) -> Exchange:
    """Of the stage with most parameters (`share` of all)."""
    settings, accumulation, zero = layout.settings, plans.accumulation.astype(float), plans.zero_stage
    payload, ranks = all_reduce_bytes(settings) * share, shards(layout, plans)
    group = group_cluster(layout.cluster, settings.tensor_parallel)
    once_s = exchange_s(payload, ranks, group, stack) if layout.training else np.zeros(ranks.shape)
    often = accumulation if stack.gradient_sync == "micro-batch" else np.ones(accumulation.shape)
    backwards = np.where(zero >= 2, accumulation, often)
    in_backward = np.where(zero == 2, 0.5, 1.0)
    forwards = np.select([zero == 2, zero == 3], [1.0, accumulation], default=0.0)
    times = backwards * in_backward + forwards * 0.5
    tied = _tied_s(layout, plans) if pipelined.any() else np.zeros(times.shape)
    return Exchange(
        payload_bytes=payload,
        ranks=ranks,
        times=times,
        communication_s=once_s * times + tied,
        backwards=backwards,
        backward_s=overlap(stack) * in_backward * once_s,
        forwards=forwards,
        forward_s=overlap(stack) * 0.5 * once_s,
    )


def _tied_s(layout: Layout, plans: Plans) -> FloatArray:
    """Gradients of the embedding tables, of which first and last stage have a copy: an all-reduce between the two, once a step
    (Narayanan et al. 2021, arXiv:2104.04473): two messages of half the tables."""
    held = counts(layout.settings.sharded)
    half = np.full(len(plans), held.tables * layout.settings.numbers.wide / 2)
    return 2 * message_s(half, plans.pipeline_parallel, plans.n_devices, layout.cluster)
