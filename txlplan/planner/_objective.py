"""What is to be least, and which plans meet deadline, budget and power cap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.cost import Estimates
from txlplan.errors import InputError
from txlplan.hardware import Cluster
from txlplan.planner._money import idle_devices, occupied_nodes, rents_usd_per_s
from txlplan.workload import Workload

FloatArray = npt.NDArray[np.float64]

_PRICES = "`txlplan prices import FILE.csv` adds prices, `txlplan compare --price SYSTEM=18.50/h` takes one"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limited:
    """Which plans meet every limit, [candidates], and the figures that the limits are about."""

    met: npt.NDArray[np.bool_]
    time_s: FloatArray | None
    cost_usd: FloatArray | None
    power_w: FloatArray | None


def objective_of(workload: Workload, cluster: Cluster, estimates: Estimates) -> FloatArray:
    """What is to be least, [candidates]: time, money or energy a token, or devices (and then time).

    Energy is that of the devices in use, and of idle ones beside them where their idle power is known. Money is in units of
    what a node costs a second, whichever way it is paid for: time × the nodes that are occupied.
    Raises InputError where a figure that it needs is unknown.
    """
    seconds = 1.0 / estimates.tokens_per_s
    if workload.objective == "fastest":
        return seconds
    if workload.objective == "fewest-devices":
        if workload.deadline_s is None:
            raise InputError(
                "objective 'fewest-devices' needs a deadline: without one it is one device", hint="state --deadline"
            )
        time_s = _time_s(workload, estimates)
        return estimates.plans.n_devices + time_s / (time_s + workload.deadline_s)
    if workload.objective == "cheapest":
        if not cluster.system.prices:
            raise InputError(
                f"objective 'cheapest' needs a price, and {cluster.system.id} has none",
                hint=_PRICES + ", or choose --objective fastest",
            )
        return seconds * occupied_nodes(cluster, estimates.plans.n_devices)
    if (joules := estimates.energy_j_per_token) is None:
        raise InputError(
            f"objective 'least-energy' needs the rated power of {cluster.device.name}, which is unknown",
            hint="add power to the device profile, or choose --objective fastest",
        )
    idle_w = cluster.device.power_idle_w
    return joules if idle_w is None else joules + idle_devices(cluster, estimates.plans.n_devices) * idle_w * seconds


def _time_s(workload: Workload, estimates: Estimates) -> FloatArray:
    if workload.tokens is None:
        raise InputError("a deadline or a budget needs the number of tokens", hint="state it with --tokens")
    return workload.tokens / estimates.tokens_per_s


def limited(workload: Workload, cluster: Cluster, estimates: Estimates) -> Limited:
    """Raises InputError where a limit needs a figure that is unknown."""
    met = np.ones(len(estimates), dtype=bool)
    time_s = cost_usd = power_w = None
    if workload.deadline_s is not None or workload.budget_usd is not None:
        time_s = _time_s(workload, estimates)
    if workload.deadline_s is not None and time_s is not None:
        met &= time_s <= workload.deadline_s
    if workload.budget_usd is not None and time_s is not None:
        rents = rents_usd_per_s(cluster, estimates.plans.n_devices)
        if rents is None:
            raise InputError(f"a budget needs a price, and {cluster.system.id} has no on-demand one", hint=_PRICES)
        cost_usd = time_s * rents
        met &= cost_usd <= workload.budget_usd
    if workload.power_cap_w is not None:
        if cluster.device.power_w is None:
            raise InputError(
                f"a power cap needs the rated power of {cluster.device.name}, which is unknown",
                hint="add power to the device profile (docs/guides/hardware.md), or leave the cap out",
            )
        power_w = np.minimum(estimates.plans.n_devices, cluster.n_devices) * cluster.device.power_w
        met &= power_w <= workload.power_cap_w
    return Limited(met=met, time_s=time_s, cost_usd=cost_usd, power_w=power_w)


def behind(workload: Workload, cluster: Cluster, other: Estimates, offered: Estimates) -> float:
    """How much worse one plan is than another by the objective, 0.05 for 5 %: its figure over the other's, less one.

    The estimates are of one plan each. Of the fewest devices, as many are compared in time.
    """
    if workload.objective == "fewest-devices" and other.plans.n_devices[0] == offered.plans.n_devices[0]:
        workload = replace(workload, objective="fastest")
    figures = [objective_of(workload, cluster, each)[0] for each in (other, offered)]
    return float(figures[0] / figures[1] - 1.0)
