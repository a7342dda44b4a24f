"""From the names of a scenario to what is compared: clusters with their prices, real ones and hypothetical ones."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from txlplan.advice._scenario import Scenario, WhatIf
from txlplan.choices import Task
from txlplan.errors import InputError
from txlplan.hardware import DeviceProfile, Price, PriceKind, SystemProfile, devices, systems, with_prices
from txlplan.planner import Candidate, Offer
from txlplan.units import BYTES, USD, USD_PER_H

LOCAL = "local"
"""The system name that stands for this machine."""
STATED = "stated for this comparison"
"""The source of a price that nobody but the question states."""
_COUNTED = re.compile(r"^(\d+)(?:\.\.(\d+))?x(.+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    system: str
    sizes: tuple[int, ...]


def candidate(system: str, *, n_nodes: int = 1, n_devices: int | None = None, stack: str | None = None) -> Candidate:
    """The cluster and stack that are named; `local` is this machine as probed, or else as detected.

    A plan made before probing names this machine `local-cpu` or `local-gpu`, which no file describes yet.
    """
    unprobed = system.startswith(f"{LOCAL}-") and system not in systems.paths()
    if system != LOCAL and not unprobed:
        return Candidate.of(system, n_nodes=n_nodes, n_devices=n_devices, stack=stack)
    from txlplan.detection import this_machine

    profile, device, own_stack = this_machine()
    return Candidate.from_profiles(profile, device, n_nodes=n_nodes, n_devices=n_devices, stack=stack or own_stack)


def shared_by(
    system: str, task: Task, *, n_nodes: int = 1, n_devices: int | None = None, stack: str | None = None
) -> tuple[Candidate, int]:
    """The candidate with so many devices (None: all), and how many data-parallel processes that stands for.

    A CPU may be shared, by as many processes as it has cores: more devices than there are stand for these.
    Raises InputError for more, and for several that generate on one CPU, which no runner starts.
    """
    whole = candidate(system, n_nodes=n_nodes, stack=stack)
    cluster = whole.cluster
    if n_devices is None or cluster.device.kind != "cpu" or n_devices <= cluster.n_devices:
        chosen = candidate(system, n_nodes=n_nodes, n_devices=n_devices, stack=stack) if n_devices is not None else whole
        return chosen, chosen.cluster.n_devices
    most = cluster.n_devices * cluster.device.cores
    if n_devices > most or n_devices % cluster.n_devices:
        raise InputError(
            f"{n_devices} processes cannot share {cluster.n_devices} × {cluster.device.name}: there is room for {most}",
            hint="one a core at most, and as many on each CPU",
        )
    if task == "generate":
        raise InputError(f"{n_devices} processes on a CPU: this version generates with one", hint="leave --devices out")
    return whole, n_devices


def offers_of(scenario: Scenario, today: datetime.date) -> list[Offer]:
    """Every candidate of a scenario, and the hypothetical twins of those that hold the device in question.

    Raises InputError (ConfigError for unknown names) for a price or a what-if that concerns no candidate.
    """
    named = _merged(_named(text.strip()) for text in scenario.on if text.strip())
    offers = [_offer(entry, scenario, today) for entry in named]
    known = dict.fromkeys(
        name for entry, offer in zip(named, offers, strict=True) for name in (entry.system, offer.sizes[0].cluster.system.id)
    )
    for system in scenario.prices:
        if system not in known:
            raise InputError(f"a price is stated for {system!r}, which is no candidate", hint=f"candidates: {', '.join(known)}")
    return [*offers, *(twin for what_if in scenario.what_if for twin in _twins(what_if, offers))]


def _named(text: str) -> _Named:
    match = _COUNTED.match(text)
    if match is None:
        return _Named(system=text, sizes=(1,))
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last:
        raise InputError(f"{text!r}: a range of nodes goes up, from 1 or more", hint="write it like 1..64xdgx-a100-40gb")
    powers = {2**power for power in range(last.bit_length()) if first <= 2**power}
    return _Named(system=match[3], sizes=tuple(sorted({first, *powers, last})))


def _merged(named: Iterable[_Named]) -> list[_Named]:
    """With those that share a size made one, so that no cluster is compared twice."""
    found: list[_Named] = []
    for entry in named:
        sharing = [one for one in found if one.system == entry.system and set(one.sizes) & set(entry.sizes)]
        if not sharing:
            found.append(entry)
            continue
        sizes = {size for one in (*sharing, entry) for size in one.sizes}
        place = found.index(sharing[0])
        found = [one for one in found if one not in sharing]
        found.insert(place, _Named(system=entry.system, sizes=tuple(sorted(sizes))))
    return found


def _offer(entry: _Named, scenario: Scenario, today: datetime.date) -> Offer:
    """The sizes of a system, at the prices that the scenario states instead of known ones; they are today's."""
    one = candidate(entry.system, stack=scenario.stack)
    sizes = [replace(one, cluster=replace(one.cluster, n_nodes=count)) for count in entry.sizes]
    prices = _stated(scenario, (entry.system, sizes[0].cluster.system.id), today)
    return Offer(
        sizes=tuple(
            replace(size, cluster=replace(size.cluster, system=with_prices(size.cluster.system, prices))) for size in sizes
        ),
        asked=entry.system,
    )


def _stated(scenario: Scenario, names: Iterable[str], today: datetime.date) -> list[Price]:
    """Prices of a system under the name that it was asked for by (`local`, a file) or its id; one of a kind."""
    found: dict[PriceKind, Price] = {}
    for name in dict.fromkeys(names):
        for text in scenario.prices_of(name):
            price = price_of(name, text, today)
            if price.kind in found:
                raise InputError(
                    f"price of {name}: {text!r} is the second of its kind, {price.kind}",
                    hint="state at most one to rent, one for spot and one to buy",
                )
            found[price.kind] = price
    return list(found.values())


def price_of(system: str, text: str, today: datetime.date) -> Price:
    """`18.50/h` (on demand), `spot 7.10/h` or `150000 USD` (to buy). Raises InputError that names the system."""
    first, _, rest = text.strip().partition(" ")
    noted = functools.partial(Price, date=today.isoformat(), source=STATED)
    try:
        if first == "spot":
            return noted(kind="spot", rent_usd_per_h=USD_PER_H.parse(rest))
        if "/" in text:
            return noted(kind="on-demand", rent_usd_per_h=USD_PER_H.parse(text))
        return noted(kind="purchase", purchase_usd=USD.parse(text))
    except ValueError as error:
        raise InputError(
            f"price of {system}: {error}", hint="write 18.50/h to rent, 'spot 7.10/h' for spot, '150000 USD' to buy"
        ) from None


def _changes(what_if: WhatIf) -> dict[str, Any]:
    """With other memory, the share of it that a process can use is that of the original."""
    if "memory" not in what_if.set or "memory_usable" in what_if.set:
        return dict(what_if.set)
    like = devices.get(what_if.like)
    try:
        memory_bytes = BYTES.parse(str(what_if.set["memory"]))
    except ValueError:
        return dict(what_if.set)
    return {**what_if.set, "memory_usable": f"{round(memory_bytes * like.usable_bytes() / like.memory_bytes)} B"}


def _twins(what_if: WhatIf, offers: Sequence[Offer]) -> Iterable[Offer]:
    """Each offer that holds the device, with the hypothetical one in its place."""
    changed = ", ".join(f"{key} = {value}" for key, value in what_if.set.items())
    if not changed:
        raise InputError(
            f"nothing is changed of {what_if.like}", hint="name keys with --set, e.g. --set memory_bandwidth='3 TB/s'"
        )
    if "kind" in what_if.set:
        raise InputError(f"a variant of {what_if.like} is of its kind: 'kind' cannot be set")
    like, device = (
        devices.get(what_if.like),
        devices.variant(what_if.like, _changes(what_if), id=f"{what_if.like} with {changed}"),
    )
    holding = [offer for offer in offers if offer.sizes[0].cluster.device.id == what_if.like]
    if not holding:
        having = sorted(system.id for system in systems.all() if system.device == what_if.like)
        raise InputError(
            f"no candidate holds {what_if.like}, of which a variant is asked for",
            hint=f"add one of {', '.join(having)} to the candidates" if having else "no known system holds it",
        )
    for offer in holding:
        sizes = tuple(
            replace(size, cluster=replace(size.cluster, device=device, system=_rated(size.cluster.system, like, device)))
            for size in offer.sizes
        )
        yield Offer(sizes=sizes, hypothetical=changed, asked=offer.asked)


def _rated(system: SystemProfile, like: DeviceProfile, device: DeviceProfile) -> SystemProfile:
    """Host, fans and network draw what they drew: the node's rated power differs by what its devices' does."""
    if system.power_w is None or like.power_w is None or device.power_w is None:
        return system
    return replace(system, power_w=system.power_w + system.n_devices * (device.power_w - like.power_w))
