"""A cluster: a system, how many of it, and the device inside."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.errors import InputError
from txlplan.hardware._device import DeviceProfile
from txlplan.hardware._system import SystemProfile

MOST_DEVICES = 200_000
"""Of the largest machine announced for training: GPUs of xAI's Colossus (https://x.ai/colossus, 2025; unverified)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """`n_nodes` systems of which `devices_per_node` devices are used (all of them by default)."""

    system: SystemProfile
    device: DeviceProfile
    n_nodes: int = 1
    devices_per_node: int | None = None

    def __post_init__(self) -> None:
        if self.n_nodes < 1:
            raise InputError(f"a cluster has at least one node, not {self.n_nodes}")
        if self.devices_per_node is not None and not 1 <= self.devices_per_node <= self.system.n_devices:
            raise InputError(f"{self.system.id} has {self.system.n_devices} devices per node, not {self.devices_per_node}")
        if self.n_devices > MOST_DEVICES:
            raise InputError(
                f"{self.n_nodes:,} × {self.system.id} are {self.n_devices:,} devices: no machine for training has more than "
                f"{MOST_DEVICES:,}",
                hint="name fewer nodes",
            )

    @property
    def per_node(self) -> int:
        """Devices used on each node."""
        return self.devices_per_node or self.system.n_devices

    @property
    def n_devices(self) -> int:
        """Devices used in all."""
        return self.n_nodes * self.per_node
