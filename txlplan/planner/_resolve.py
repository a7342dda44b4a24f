"""From names to profiles: the cluster and the stack that a plan is made for."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.errors import ConfigError, InputError
from txlplan.hardware import Cluster, DeviceProfile, StackProfile, SystemProfile, devices, priced, stacks, systems

DEFAULT_STACKS = {"gpu": "txlplan-cuda", "cpu": "txlplan-cpu", "tpu": "txlplan-xla"}
"""Stack by kind of device, where a system names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A cluster with the stack it would run: what is planned for, and what `compare` ranks."""

    cluster: Cluster
    stack: StackProfile

    @classmethod
    def of(cls, system: str, *, n_nodes: int = 1, n_devices: int | None = None, stack: str | None = None) -> Candidate:
        """Look profiles up by name: `n_devices` in all (None: every device), over `n_nodes` equal nodes.

        The name of a device stands for a node with one.

        Raises ConfigError for an unknown name, InputError for a number of devices that the nodes cannot share or a device
        for which no stack is known.
        """
        profile = _bare(system) if system not in systems.paths() and system in devices.paths() else systems.get(system)
        if profile.device not in devices.paths():
            raise ConfigError(
                f"{systems.path(system)}: device {profile.device!r} is unknown",
                hint="describe it in profiles/devices, or name a known one (`txlplan hardware list`)",
            )
        return cls.from_profiles(profile, devices.get(profile.device), n_nodes=n_nodes, n_devices=n_devices, stack=stack)

    @classmethod
    def from_profiles(
        cls,
        system: SystemProfile,
        device: DeviceProfile,
        *,
        n_nodes: int = 1,
        n_devices: int | None = None,
        stack: str | StackProfile | None = None,
    ) -> Candidate:
        """The same from profiles that are already at hand; prices of the user's books are added to the system's own."""
        chosen = stack if isinstance(stack, StackProfile) else stack_for(system, device, stack)
        return cls(cluster=_cluster(priced(system), device, n_nodes, n_devices), stack=chosen)

    @property
    def label(self) -> str:
        """`dgx-1`, `4x dgx-1`, `dgx-1 (2 of 8 devices)`."""
        name = self.cluster.system.id if self.cluster.n_nodes == 1 else f"{self.cluster.n_nodes}x {self.cluster.system.id}"
        if self.cluster.per_node == self.cluster.system.n_devices:
            return name
        return f"{name} ({self.cluster.per_node} of {self.cluster.system.n_devices} devices)"


def _bare(device: str) -> SystemProfile:
    """One device in a node of which nothing else is known, a price neither."""
    return SystemProfile(id=device, name=devices.get(device).name, kind="server", device=device, n_devices=1)


def stack_for(system: SystemProfile, device: DeviceProfile, name: str | None = None) -> StackProfile:
    """The stack named, or the system's own, or the default of the device's kind."""
    wanted = (system.stack or DEFAULT_STACKS[device.kind]) if name is None else name
    if name is None and system.stack is None and wanted not in stacks.paths():
        raise InputError(
            f"no stack is known that runs on {device.name} ({device.kind})", hint="name one with --stack (profiles/stacks)"
        )
    return stacks.get(wanted)


def _cluster(system: SystemProfile, device: DeviceProfile, n_nodes: int, n_devices: int | None) -> Cluster:
    if n_nodes < 1:
        raise InputError(f"{n_nodes} nodes of {system.id}: their number must be at least 1")
    if n_devices is None:
        return Cluster(system=system, device=device, n_nodes=n_nodes)
    if n_devices < 1 or n_devices % n_nodes or n_devices // n_nodes > system.n_devices:
        raise InputError(
            f"{n_devices} devices cannot be taken evenly from {n_nodes} × {system.id} ({system.n_devices} devices each)",
            hint=f"choose a multiple of {n_nodes} up to {n_nodes * system.n_devices}, or more --nodes",
        )
    return Cluster(system=system, device=device, n_nodes=n_nodes, devices_per_node=n_devices // n_nodes)
