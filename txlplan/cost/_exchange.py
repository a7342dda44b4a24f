"""Gradients and parameters between the devices that hold the same part of the model.

Without ZeRO, and with its stage 1, gradients are all-reduced once a step (or a micro-batch, as the stack does). Stage 2 reduces
and scatters them after every micro-batch and gathers parameters once a step; stage 3 gathers parameters for every forward and
every backward too (Rajbhandari et al. 2020, arXiv:1910.02054, §7: as many bytes, or half as many again). A reduce-scatter is
half an all-reduce, and so is an all-gather: parameters are gathered as they are kept, in as many bytes as their gradients, and
cast after that (FullyShardedDataParallel under autocast). Forward, which takes half as long as backward, hides its share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost._communication import exchange_s
from txlplan.cost._held import counts
from txlplan.cost._layout import Layout
from txlplan.cost._mesh import group_cluster, message_s
from txlplan.cost._op_stream import FloatArray
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
    exposed_s: FloatArray


def exchange(
    layout: Layout,
    stack: StackProfile,
    plans: Plans,
    share: FloatArray,
    backward_s: FloatArray,
    pipelined: npt.NDArray[np.bool_],
) -> Exchange:
    """Of the stage with most parameters (`share` of all); its backward, of `backward_s`, hides a part."""
    settings, accumulation = layout.settings, plans.accumulation.astype(float)
    payload, ranks = all_reduce_bytes(settings) * share, shards(layout, plans)
    group = group_cluster(layout.cluster, settings.tensor_parallel)
    communication, exposed = exchange_s(payload, ranks, group, stack, backward_s)
    often = accumulation if stack.gradient_sync == "micro-batch" else np.ones(accumulation.shape)
    times = np.select(
        [plans.zero_stage == 2, plans.zero_stage == 3],
        [0.5 * accumulation + 0.5, 1.5 * accumulation],
        default=often,
    )
    tied = _tied_s(layout, plans) if pipelined.any() else np.zeros(times.shape)
    return Exchange(
        payload_bytes=payload,
        ranks=ranks,
        times=times,
        communication_s=communication * times + tied,
        exposed_s=exposed * times + tied,
    )


def _tied_s(layout: Layout, plans: Plans) -> FloatArray:
    """Gradients of the embedding tables, of which first and last stage have a copy: an all-reduce between the two, once a step
    (Narayanan et al. 2021, arXiv:2104.04473): two messages of half the tables."""
    held = counts(layout.settings.sharded)
    half = np.full(len(plans), held.tables * layout.settings.numbers.wide / 2)
    return 2 * message_s(half, plans.pipeline_parallel, plans.n_devices, layout.cluster)
