"""The cluster of a published run: its system's profile where there is one, else built from device, link and numbers."""

from __future__ import annotations

from txlplan.errors import InputError
from txlplan.hardware import Cluster, DeviceProfile, Link, SystemProfile, devices, systems

_LINKS_BYTES_PER_S = {"pcie3": 16e9, "pcie4": 32e9, "pcie5": 64e9, "nvlink-bridge": 56.25e9}
"""Of one direction: 16 lanes (PCI-SIG, less encoding), and half of the 112.5 GB/s of an NVLink bridge between GA102 cards."""


class Clusters:
    """Clusters by name; each profile is read once."""

    def __init__(self) -> None:
        self._systems = {profile.id: profile for profile in systems.all()}
        self._devices: dict[str, DeviceProfile] = {}

    def of(self, device: str, system: str, interconnect: str, n_devices: int, n_nodes: int) -> Cluster:
        """`n_devices` in all on `n_nodes` equal nodes.

        Raises ConfigError for an unknown device, InputError for a link or a number that cannot be.
        """
        if n_nodes < 1 or n_devices < 1 or n_devices % n_nodes:
            raise InputError(f"{n_devices} devices cannot be shared by {n_nodes} nodes")
        per_node = n_devices // n_nodes
        if device not in self._devices:
            self._devices[device] = devices.get(device)
        known = self._systems.get(system)
        if known is None or known.n_devices < per_node:
            known = self._built(device, interconnect, per_node, n_nodes)
        return Cluster(system=known, device=self._devices[device], n_nodes=n_nodes, devices_per_node=per_node)

    def _built(self, device: str, interconnect: str, per_node: int, n_nodes: int) -> SystemProfile:
        name = f"{per_node}x {device}"
        inside = self._link(interconnect) if per_node > 1 else None
        links = [each.inter_node for each in self._systems.values() if each.inter_node and each.inter_node.kind == "infiniband"]
        across = min(links, key=lambda link: link.bandwidth_bytes_per_s) if links and n_nodes > 1 else None
        return SystemProfile(
            id=name, name=name, kind="server", device=device, n_devices=per_node, intra_node=inside, inter_node=across
        )

    def _link(self, kind: str) -> Link:
        """As a shipped system has it, or by the link's own standard."""
        if kind in _LINKS_BYTES_PER_S:
            return Link(kind=kind, bandwidth_bytes_per_s=_LINKS_BYTES_PER_S[kind])
        known = [each.intra_node for each in self._systems.values() if each.intra_node and each.intra_node.kind == kind]
        if not known:
            raise InputError(
                f"interconnect {kind!r} is not known", hint=f"known: {', '.join(_LINKS_BYTES_PER_S)}, nvswitch1, …"
            )
        measured = [link for link in known if link.all_reduce_bus_bandwidth_bytes_per_s]
        return (measured or known)[0]
