"""The machine that a plan is made for and run on, as planner and cost know machines."""

from __future__ import annotations

from dataclasses import dataclass

from txlplan.errors import InputError
from txlplan.hardware import Cluster, DeviceProfile, StackProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """This machine, or the part of it that a run uses."""

    cluster: Cluster
    stack: StackProfile

    @property
    def device(self) -> DeviceProfile:
        """One GPU, or the whole CPU."""
        return self.cluster.device

    @property
    def backend(self) -> str:
        """What the worker computes on: `cuda` or `cpu`."""
        return "cuda" if self.device.kind == "gpu" else "cpu"


def this_machine(n_devices: int | None = None) -> Machine:
    """This machine with `n_devices` data-parallel processes (None: all of its GPUs may be used, or its CPU).

    A process has a GPU of its own; several on a CPU share its cores. Raises InputError for more of them than there are
    GPUs or cores.
    """
    from txlplan import detection

    system, device, stack = detection.this_machine()
    most = device.cores if device.kind == "cpu" else system.n_devices
    if n_devices is not None and not 1 <= n_devices <= most:
        what = "cores" if device.kind == "cpu" else "devices"
        raise InputError(f"devices = {n_devices}: this machine has {most} {what} ({device.name})", hint=f"use 1 to {most}")
    used = None if device.kind == "cpu" else n_devices
    return Machine(cluster=Cluster(system=system, device=device, devices_per_node=used), stack=stack)
