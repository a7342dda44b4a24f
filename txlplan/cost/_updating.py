"""The update of parameters, and what gathers gradients for it: on the device, on its shard of them (ZeRO), or on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from txlplan.cost._held import counts
from txlplan.cost._layout import Layout
from txlplan.cost._offload import offload_s
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._parts import Parts
from txlplan.cost._plans import NAMES, Plans
from txlplan.cost._stages import Stage
from txlplan.cost._update import state_bytes

STATE_BYTES = {"fp32": 4.0, "bf16": 2.0}
"""Of one element of an optimizer state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Updating:
    """Of the stage with most parameters, with the gradients that are added before, [candidates]."""

    device_s: FloatArray
    host_s: FloatArray
    total_s: FloatArray
    """Region on the device."""
    launches: FloatArray
    offload_s: FloatArray
    largest_share: FloatArray
    """Parameters of that stage, over those of the whole model."""
    share: FloatArray
    """Of the update of all parameters, what this device does."""
    optimizer_share: FloatArray
    """The same of the optimizer itself."""


def state_share(plans: Plans) -> FloatArray:
    """Bytes of optimizer states over those in fp32, [candidates]."""
    shares = np.array([STATE_BYTES[name] / STATE_BYTES["fp32"] for name in NAMES["optimizer_precision"]], dtype=np.float64)
    chosen: FloatArray = shares[plans.optimizer_precision]
    return chosen


def shards(layout: Layout, plans: Plans) -> FloatArray:
    """Devices that hold the same parameters, and that ZeRO shards states over: data × context parallel. [candidates]"""
    return plans.data_parallel.astype(float) * float(layout.settings.context_parallel)


def added_share(layout: Layout, plans: Plans, held: FloatArray) -> FloatArray:
    """Of all gradients, what a device adds after a micro-batch: of what it holds, or of its shard where they are scattered
    after every micro-batch (ZeRO 2 and 3). [candidates]"""
    share: FloatArray = held / np.where(plans.zero_stage >= 2, shards(layout, plans), 1.0)
    return share


def updating(layout: Layout, parts: Parts, plans: Plans, stages: Sequence[Stage], slower: FloatArray) -> Updating:
    """One update, and the gradients added that the micro-batches after the first one left.

    Under ZeRO 1 to 3 each device updates its shard (Rajbhandari et al. 2020, arXiv:1910.02054, §5).
    """
    held = counts(layout.settings.sharded)
    largest = np.max([held.stage(stage.layers, stage.first, stage.last) for stage in stages], axis=0)
    share = largest / held.model / np.where(plans.zero_stage > 0, shards(layout, plans), 1.0)
    column = stages[0].column
    whole, optimizer = parts.seconds("update"), parts.optimizer
    states = state_bytes(layout.settings.optimization, layout.settings.sharded) if layout.training else 0.0
    moved = float(parts.stream.bytes_moved[parts.template.optimizer_rows].sum(axis=0).max(initial=0.0))
    saved = 2 * states * (1 - state_share(plans)) / moved if moved else np.zeros(column.shape)
    offloaded = plans.offload != 0
    optimizer_share = share * np.where(offloaded, 0.0, 1 - np.minimum(saved, 1.0))
    added, further = parts.seconds("accumulation"), (plans.accumulation - 1) * added_share(layout, plans, largest / held.model)
    device_s = share * (whole.device_s - optimizer.device_s)[column] + optimizer_share * optimizer.device_s[column]
    device_s = device_s + further * added.device_s[column]
    launches = share * whole.launches[column] - np.where(offloaded, share * optimizer.launches[column], 0.0)
    launches = launches + further * added.launches[column]
    host_s = launches * parts.time.dispatch_s["update"]
    total_s = parts.time.region_s("update", device_s, launches, slower)
    moved_s = np.zeros(column.shape)
    if offloaded.any():
        wide = layout.settings.numbers.wide
        moved_s = offload_s(share * held.model, share * states * state_share(plans), wide, layout.cluster)
        moved_s = np.where(offloaded, moved_s, 0.0)
    return Updating(
        device_s=device_s,
        host_s=host_s,
        total_s=total_s,
        launches=launches,
        offload_s=moved_s,
        largest_share=largest / held.model,
        share=share,
        optimizer_share=optimizer_share,
    )
