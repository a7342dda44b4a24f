"""What is to be least, and which plans meet deadline, budget and power cap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost import Estimates
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster
from txlplan.planner._money import rents_usd_per_s
from txlplan.units import format_s, format_usd, format_w
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
        return estimates.plans.n_devices + seconds / (1.0 + seconds)
    if workload.objective == "cheapest":
        rents = rents_usd_per_s(cluster, estimates.plans.n_devices)
        if rents is None:
            raise InputError(
                f"objective 'cheapest' needs a price, and {cluster.system.id} has no on-demand one",
                hint=_PRICES + ", or choose --objective fastest",
            )
        return seconds * rents
    if (joules := estimates.energy_j_per_token) is None:
        raise InputError(
            f"objective 'least-energy' needs the rated power of {cluster.device.name}, which is unknown",
            hint="add power to the device profile, or choose --objective fastest",
        )
    return joules


def limited(workload: Workload, cluster: Cluster, estimates: Estimates) -> Limited:
    """Raises InputError where a limit needs a figure that is unknown."""
    met = np.ones(len(estimates), dtype=bool)
    time_s = cost_usd = power_w = None
    if workload.deadline_s is not None or workload.budget_usd is not None:
        if workload.tokens is None:
            raise InputError("a deadline or a budget needs the number of tokens", hint="state it with --tokens")
        time_s = workload.tokens / estimates.tokens_per_s
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


def limits_refusal(workload: Workload, cluster: Cluster, limits: Limited, fits: npt.NDArray[np.bool_]) -> NoPlanFitsError:
    """The error where plans fit and none meets the limits; two limits that exclude each other are named as a pair."""
    name = cluster.system.id
    if limits.power_w is not None and workload.power_cap_w is not None and (limits.power_w[fits] > workload.power_cap_w).all():
        return NoPlanFitsError(
            f"no plan on {name} stays within {format_w(workload.power_cap_w)}: "
            f"the least that fits draws {format_w(float(limits.power_w[fits].min()))}",
            hint="raise --max-power, or choose a device that draws less",
        )
    if limits.time_s is not None and workload.deadline_s is not None:
        times = limits.time_s[fits]
        if (times > workload.deadline_s).all():
            return NoPlanFitsError(
                f"no plan on {name} meets the deadline of {format_s(workload.deadline_s)}: "
                f"the fastest takes {format_s(float(times.min()))}",
                hint="`txlplan compare` shows which systems do",
            )
    if limits.cost_usd is not None and workload.budget_usd is not None:
        costs = limits.cost_usd[fits]
        if (costs > workload.budget_usd).all():
            return NoPlanFitsError(
                f"no plan on {name} stays within {format_usd(workload.budget_usd)}: "
                f"the cheapest costs {format_usd(float(costs.min()))}",
                hint="`txlplan compare` ranks systems by cost",
            )
    return _excluded(workload, name, limits, fits)


def _excluded(workload: Workload, name: str, limits: Limited, fits: npt.NDArray[np.bool_]) -> NoPlanFitsError:
    """Each limit can be met alone, all together cannot."""
    said = []
    if workload.deadline_s is not None:
        said.append(f"the deadline of {format_s(workload.deadline_s)}")
    if workload.budget_usd is not None:
        said.append(f"the budget of {format_usd(workload.budget_usd)}")
    if workload.power_cap_w is not None:
        said.append(f"the power cap of {format_w(workload.power_cap_w)}")
    detail = ""
    if limits.time_s is not None and limits.cost_usd is not None:
        assert workload.deadline_s is not None
        in_time = limits.cost_usd[fits & (limits.time_s <= workload.deadline_s)]
        detail = f": in time, the cheapest costs {format_usd(float(in_time.min()))}" if in_time.size else ""
    return NoPlanFitsError(f"on {name}, {' and '.join(said)} exclude each other{detail}", hint="give up one of them")
