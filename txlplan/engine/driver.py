"""What the NVIDIA driver counts of a device: its energy, and the memory of this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import torch


def energy_counter(device: torch.device) -> Callable[[], float] | None:
    """A function that gives the joules used since the driver was loaded; None where nothing counts them.

    NVML counts total energy from Volta on (nvmlDeviceGetTotalEnergyConsumption, in millijoules).
    """
    if device.type != "cuda":
        return None
    with contextlib.suppress(Exception):
        import pynvml

        handle = _handle(device)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None


def process_bytes(device: torch.device) -> int | None:
    """Memory of the CUDA device that this process holds, with its context; None where the driver does not tell.

    It tells of no process that it knows by another number: in a container, for one.
    """
    with contextlib.suppress(Exception):
        import pynvml

        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(_handle(device))
        return next((int(each.usedGpuMemory) for each in processes if each.pid == os.getpid() and each.usedGpuMemory), None)
    return None


def _handle(device: torch.device) -> object:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
