"""What a workload costs on one cluster, by every way to pay for it: rent, spot or purchase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from txlplan.estimates import Range
from txlplan.hardware import Economics, Price
from txlplan.planner._duration import Duration, Planned, duration
from txlplan.planner._money import added, idle_j, n_uncounted
from txlplan.units import format_usd
from txlplan.workload import Workload

Way = Literal["rent", "spot", "buy"]
Pay = Literal["auto", "rent", "spot", "buy"]
"""How candidates are to be paid for. auto: rented where an on-demand price is known, else bought."""

_KINDS: dict[Way, Literal["on-demand", "spot", "purchase"]] = {"rent": "on-demand", "spot": "spot", "buy": "purchase"}
YEAR_S = 365.25 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Time, money and energy of the whole workload in one way of paying."""

    way: Way | None
    """None: no price is known."""
    duration: Duration
    price: Price | None
    cost_usd: Range | None
    """Rent of whole nodes for the whole time; or the share of the purchase that the time uses up, and electricity."""
    capital_usd: float | None
    """What the nodes that the plan occupies cost to buy, paid before the first run; None where they are not bought."""
    electricity_usd: Range | None
    """What of the cost is electricity and cooling (bought systems; None for rented ones, whose rent contains it)."""
    energy_j: Range | None
    """Of the devices in use, and of idle ones beside them whose idle power is known (hosts and cooling are not in it)."""
    n_uncounted: int = 0
    """Idle devices of the occupied nodes that are not in the energy: what they draw is unknown."""

    @property
    def whole_energy_j(self) -> Range | None:
        """The energy of all devices of the nodes; None where that of some is unknown."""
        return None if self.n_uncounted else self.energy_j

    @property
    def time_s(self) -> Range:
        """From the command to the result."""
        return self.duration.total_s


def accounts(workload: Workload, found: Planned, economics: Economics) -> tuple[Account, ...]:
    """One account for each way whose price is known; where none is, one without money."""
    known = tuple(way for way, kind in _KINDS.items() if found.candidate.cluster.system.price(kind))
    return tuple(account(workload, found, economics, way) for way in known or (None,))


def account(workload: Workload, found: Planned, economics: Economics, way: Way | None) -> Account:
    """The account of one way to pay, of a run that ends: tokens trained, scored or generated.

    Ranking, front, verdict and reports read accounts only: a load that never ends needs another account and no more.
    """
    time = duration(workload, found, economics, spot=way == "spot")
    price = found.candidate.cluster.system.price(_KINDS[way]) if way else None
    energy = _energy_j(found, time.total_s)
    capital_usd = found.n_nodes * price.purchase_usd if price is not None and price.purchase_usd is not None else None
    plain = Account(
        way=way,
        duration=time,
        price=price,
        cost_usd=None,
        capital_usd=capital_usd,
        electricity_usd=None,
        energy_j=energy,
        n_uncounted=n_uncounted(found.candidate.cluster, found.n_devices),
    )
    if price is None:
        return plain
    if price.rent_usd_per_h is not None:
        rent_usd_per_s = found.n_nodes * price.rent_usd_per_h / 3600
        return replace(plain, cost_usd=_map(time.total_s, lambda time_s: time_s * rent_usd_per_s))
    electricity = _electricity_usd(found, economics, time.total_s, energy)
    if electricity is None or capital_usd is None:
        return plain
    capital_usd_per_s = capital_usd / (economics.life_years * YEAR_S * economics.utilisation)
    share = _map(time.total_s, lambda time_s: time_s * capital_usd_per_s)
    return replace(plain, cost_usd=added(share, electricity), electricity_usd=electricity)


def outlay(account: Account) -> str:
    """`an outlay of $149,000`, which a purchase needs before its first run; empty where nothing is bought."""
    return "" if account.capital_usd is None else f"an outlay of {format_usd(account.capital_usd)}"


def chosen(known: tuple[Account, ...], pay: Pay) -> Account:
    """The account that `pay` asks for; where its price is unknown, one whose cost is unknown."""
    by_way = {one.way: one for one in known}
    for way in ("rent", "buy") if pay == "auto" else (pay,):
        if way in by_way:
            return by_way[way]
    unpriced = next((one for one in known if one.way != "spot"), known[0])
    return replace(unpriced, way=None, price=None, cost_usd=None, capital_usd=None, electricity_usd=None)


def _energy_j(found: Planned, time_s: Range) -> Range | None:
    """Mean power of the devices in a step, over the whole time; and that of idle ones, where it is known."""
    energy, step = found.choice.estimate.energy_j_per_step, found.choice.estimate.step_s
    if energy is None:
        return None
    busy = Range(
        value=energy.value / step.value * time_s.value,
        low=energy.low / step.low * time_s.low,
        high=energy.high / step.high * time_s.high,
    )
    return added(busy, idle_j(found.candidate.cluster, found.n_devices, time_s))


def _electricity_usd(found: Planned, economics: Economics, time_s: Range, energy_j: Range | None) -> Range | None:
    """Electricity and cooling of bought nodes; None where the devices' power is unknown.

    Where the rated power of the node is known, what it exceeds its devices' by (host, fans, network) is counted in full. Idle
    devices whose draw is unknown draw something between nothing and their rated power, and the share of it that is assumed.
    """
    device, system = found.candidate.cluster.device, found.candidate.cluster.system
    waiting_w = device.waiting_w()
    if energy_j is None or device.power_w is None or waiting_w is None:
        return None
    rest_w = max((system.power_w or 0.0) - system.n_devices * device.power_w, 0.0) * found.n_nodes
    factor = economics.pue * economics.electricity_usd_per_j
    n_idle = n_uncounted(found.candidate.cluster, found.n_devices)
    idle = Range(value=n_idle * waiting_w * time_s.value, low=0.0, high=n_idle * device.power_w * time_s.high)
    energy_j = added(energy_j, idle)
    return added(_map(energy_j, lambda joules: joules * factor), _map(time_s, lambda seconds: seconds * rest_w * factor))


def _map(range_: Range, function: Callable[[float], float]) -> Range:
    return Range(value=function(range_.value), low=function(range_.low), high=function(range_.high))
