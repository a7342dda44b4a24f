"""Energy that an NVIDIA device has used, from its own counter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch


def counter(device: torch.device) -> Callable[[], float] | None:
    """A function that gives the joules used since the driver was loaded; None where nothing counts them.

    NVML counts total energy from Volta on (nvmlDeviceGetTotalEnergyConsumption, in millijoules).
    """
    if device.type != "cuda":
        return None
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None
