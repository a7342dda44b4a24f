"""What a plan takes in all: time, cost and energy of a workload's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.estimates import Estimate, Range
from txlplan.hardware import Cluster
from txlplan.plan_file import Plan
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Of the whole workload; None where it is unknown how many tokens, what the system costs, or what it draws."""

    time_s: Range | None
    cost_usd: Range | None
    """On-demand rent of every node the plan occupies, whole nodes as they are rented."""
    energy_j: Range | None
    """Of the devices in use, and of idle ones beside them whose idle power is known."""
    n_uncounted: int = 0
    """Idle devices of the occupied nodes that are not in the energy: what they draw is unknown."""


def totals(workload: Workload, cluster: Cluster, plan: Plan, estimate: Estimate) -> Totals:
    """Time is tokens / tokens per second; cost is time × rent × nodes; energy is energy per step × steps."""
    if workload.tokens is None:
        return Totals(time_s=None, cost_usd=None, energy_j=None)
    speed = estimate.tokens_per_s
    time_s = Range(value=workload.tokens / speed.value, low=workload.tokens / speed.high, high=workload.tokens / speed.low)
    rent = rent_usd_per_s(cluster, plan)
    steps = time_s.value / estimate.step_s.value
    energy = None if estimate.energy_j_per_step is None else _times(estimate.energy_j_per_step, steps)
    return Totals(
        time_s=time_s,
        cost_usd=None if rent is None else _times(time_s, rent),
        energy_j=None if energy is None else added(energy, idle_j(cluster, plan.n_devices, time_s)),
        n_uncounted=n_uncounted(cluster, plan.n_devices),
    )


def rent_usd_per_s(cluster: Cluster, plan: Plan) -> float | None:
    """On-demand rent of the nodes that a plan occupies; None where no price is known."""
    rents = rents_usd_per_s(cluster, np.array([plan.n_devices]))
    return None if rents is None else float(rents[0])


def rents_usd_per_s(cluster: Cluster, n_devices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
    """The same of plans that occupy so many devices, [candidates]."""
    price = cluster.system.price("on-demand")
    if price is None or price.rent_usd_per_h is None:
        return None
    rents: npt.NDArray[np.float64] = occupied_nodes(cluster, n_devices).astype(np.float64) * (price.rent_usd_per_h / 3600)
    return rents


def occupied_nodes(cluster: Cluster, n_devices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Whole nodes, as they are rented or bought, of plans that occupy so many devices, [candidates]."""
    return np.minimum(-(-n_devices // cluster.per_node), cluster.n_nodes)


def idle_devices(cluster: Cluster, n_devices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Devices of the occupied nodes that plans of so many devices leave idle, of those that may be used, [candidates]."""
    held = occupied_nodes(cluster, n_devices) * cluster.per_node
    return held - np.minimum(n_devices, held)


def n_uncounted(cluster: Cluster, n_devices: int) -> int:
    """Idle devices of the occupied nodes whose draw is unknown."""
    return 0 if cluster.device.power_idle_w is not None else int(idle_devices(cluster, np.array(n_devices)))


def idle_j(cluster: Cluster, n_devices: int, time_s: Range) -> Range | None:
    """What the idle devices of the occupied nodes draw over a time; None where their idle power is unknown."""
    if cluster.device.power_idle_w is None:
        return None
    return _times(time_s, int(idle_devices(cluster, np.array(n_devices))) * cluster.device.power_idle_w)


def added(one: Range, other: Range | None) -> Range:
    """Both ends together: time drives both, so that they are short or long together."""
    if other is None:
        return one
    return Range(value=one.value + other.value, low=one.low + other.low, high=one.high + other.high)


def _times(range_: Range, factor: float) -> Range:
    return Range(value=range_.value * factor, low=range_.low * factor, high=range_.high * factor)
