"""What is to be least, and which plans meet deadline, budget and power cap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from txlplan.cost import Estimates
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster
from txlplan.planner._money import idle_devices, occupied_nodes, rents_usd_per_s
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
        return estimates.plans.n_devices + seconds / (1.0 + seconds)
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
    """The error where plans fit and none meets the limits: of the limits that cannot be met, alone or together, the fewest."""
    name, asked = cluster.system.id, _asked(workload, limits, fits)
    missed = next(
        chosen
        for count in range(1, len(asked) + 1)
        for chosen in combinations(asked, count)
        if not np.logical_and.reduce([one.met for one in chosen]).any()
    )
    *others, last = missed
    if not others:
        return NoPlanFitsError(f"no plan on {name} meets {last.words}: {last.least(last.figures)}", hint=last.hint)
    left = last.figures[np.logical_and.reduce([one.met for one in others])]
    within = " and ".join(one.words.partition(" of ")[0] for one in others)
    return NoPlanFitsError(
        f"on {name}, {' and '.join(one.words for one in missed)} exclude each other: within {within}, {last.least(left)}",
        hint="give up one of them",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limit:
    """One limit and the figures of the plans that fit, [plans]."""

    words: str
    most: float
    figures: FloatArray
    said: str
    """What is the least: `the fastest takes`."""
    write: Callable[[float | None], str]
    hint: str

    @property
    def met(self) -> npt.NDArray[np.bool_]:
        return self.figures <= self.most

    def least(self, figures: FloatArray) -> str:
        return f"{self.said} {self.write(float(figures.min()))}"


def _asked(workload: Workload, limits: Limited, fits: npt.NDArray[np.bool_]) -> list[_Limit]:
    known = (
        ("deadline", workload.deadline_s, limits.time_s, "the fastest takes", format_s,
         "`txlplan compare` shows which systems do"),
        ("budget", workload.budget_usd, limits.cost_usd, "the cheapest costs", format_usd,
         "`txlplan compare` ranks systems by cost"),
        ("power cap", workload.power_cap_w, limits.power_w, "the least that fits draws", format_w,
         "raise --max-power, or choose a device that draws less"),
    )  # fmt: skip
    return [
        _Limit(words=f"the {name} of {write(most)}", most=most, figures=figures[fits], said=said, write=write, hint=hint)
        for name, most, figures, said, write, hint in known
        if most is not None and figures is not None
    ]
