"""A system: one node with its devices, the links between them, its host and what it costs."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from txlplan.config._schema import STRICT
from txlplan.errors import InputError
from txlplan.hardware._device import Provenance
from txlplan.units import BYTES, BYTES_PER_S, SECONDS, USD, USD_PER_H, WATTS

PriceKind = Literal["on-demand", "spot", "purchase"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """How devices (or nodes) talk. Bandwidth is per device (per node between nodes), one direction."""

    __pydantic_config__ = STRICT

    kind: str
    """nvlink2-cube-mesh, nvswitch1/2/3, nvlink-bridge, pcie3/4/5, infiniband, ethernet, ici-2d, ici-3d, shared-memory."""
    bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S]
    latency_s: Annotated[float, SECONDS] | None = None
    all_reduce_bus_bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S] | None = None
    """Measured bus bandwidth of a large all-reduce over all devices of the node (NCCL's definition)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The CPU side of a node."""

    __pydantic_config__ = STRICT

    cpu: str
    sockets: int = 1
    cores: int | None = None
    """Physical cores of all sockets, or vCPUs where a cloud says no more."""
    memory_bytes: Annotated[int, BYTES] | None = None
    link_bandwidth_bytes_per_s: Annotated[float, BYTES_PER_S] | None = None
    """Of each device to the host, one direction; None: by the PCI Express generation of the device."""
    relative_speed: float = 1.0
    """Eager dispatch by one core, over that of a DGX A100's host (EPYC 7742)."""
    crowded_speed: float = 1.0
    """Speed of a core when processes of all devices are busy, over that when one is: all-core over highest turbo clock."""

    def __post_init__(self) -> None:
        for name in ("relative_speed", "crowded_speed"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} = {getattr(self, name)} must be more than zero, and finite")


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What one system costs, per hour or to own."""

    __pydantic_config__ = STRICT

    kind: PriceKind
    rent_usd_per_h: Annotated[float, USD_PER_H] | None = None
    purchase_usd: Annotated[float, USD] | None = None
    date: str
    """When the source said so, ISO; anything else is an unknown day."""
    source: str
    region: str | None = None

    def __post_init__(self) -> None:
        if (self.purchase_usd is None) == (self.rent_usd_per_h is None):
            raise ValueError("a price is either 'rent' or 'purchase'")
        if (self.kind == "purchase") != (self.purchase_usd is not None):
            wrong, right = ("rent", "purchase") if self.kind == "purchase" else ("purchase", "rent")
            raise ValueError(f"kind = {self.kind!r} with {wrong!r}: a price of that kind states {right!r}")
        amount = self.rent_usd_per_h if self.purchase_usd is None else self.purchase_usd
        if amount is None or not 0 < amount < float("inf"):
            raise ValueError(f"a price of {amount} is not more than zero")

    @property
    def day(self) -> datetime.date | None:
        """The date, where it is known."""
        try:
            return datetime.date.fromisoformat(self.date)
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemProfile:
    """One file of profiles/systems."""

    __pydantic_config__ = STRICT

    id: str
    name: str
    kind: Literal["server", "cloud", "slice", "local"]
    device: str
    """Id of its devices' profile."""
    n_devices: int
    intra_node: Link | None = None
    """None where there is one device."""
    inter_node: Link | None = None
    """None where nodes cannot be joined, or nothing is known of it."""
    host: Host | None = None
    power_w: Annotated[float, WATTS] | None = None
    """Rated power of the whole node, devices included."""
    prices: tuple[Price, ...] = ()
    stack: str | None = None
    """The stack profile used where none is named (a probed machine names its own)."""
    provenance: Provenance = "datasheet"
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self) -> None:
        if self.n_devices < 1:
            raise InputError(f"n_devices = {self.n_devices} must be at least 1")

    def price(self, kind: PriceKind) -> Price | None:
        """The newest price of a kind, or None; of two of one day the first, and any before one of an unknown day."""
        known = (price for price in self.prices if price.kind == kind)
        return max(known, key=lambda price: price.day or datetime.date.min, default=None)
