"""What a GPU's data sheet says of the clock that it holds under load.

The power that is left for a multiprocessor, W = (rated − board − memory) / multiprocessors, pays for `_ENERGY` · clock: with
the fitted `full_clock_w` (of a 12 or 8 nm part at `REFERENCE_HZ`), sustained over rated clock is

    min(limit, W / (full_clock_w · energy · rated / REFERENCE_HZ))
"""

from __future__ import annotations

import numpy as np

from txlplan.hardware import DeviceProfile

REFERENCE_HZ = 1.6e9
_BOARD_W = 16.0
"""Drawn whatever the multiprocessors do: fans, regulators, cache and links at full clocks. A T4 that does nothing at low ones
draws 10 W; that it is more was chosen with the published rows in view."""
_MEMORY_J_PER_BYTE = 56e-12
"""Energy of GDDR6 traffic, about 7 pJ a bit; assumed for every memory, at the full bandwidth."""
_ENERGY = {"8.0": 0.73, "8.9": 0.5, "9.0": 0.7, "10.0": 0.7, "12.0": 0.5}
"""Rated power per multiprocessor and clock by compute capability, over that of a like board of 12 or 8 nm by the same data
sheets: A100 PCIe (1.64 nJ) over V100 PCIe (2.26), RTX 6000 Ada, L40S and RTX 4090 over RTX A6000, A40 and RTX 3090 (0.42 to
0.56), H100 PCIe over A100 PCIe 80 GB (0.89 of 0.73). Blackwell as the generation before it."""
_ABOVE_TYPICAL = 1.10
"""Highest over rated clock where the rated one is typical (GeForce, Titan, Quadro, RTX): such boards have limits 15–30 % above
it and run 5–15 % above it under loads that leave power."""


def clock_power_w(device: DeviceProfile) -> float:
    """Power per multiprocessor at `REFERENCE_HZ` that allows the same share of the rated clock; inf: power is unknown."""
    if device.power_w is None:
        return np.inf
    memory_w = _MEMORY_J_PER_BYTE * device.memory_bandwidth_bytes_per_s
    available_w = max(device.power_w - _BOARD_W - memory_w, 1.0) / device.cores
    return available_w * REFERENCE_HZ / (rated_clock_hz(device) * _ENERGY.get(device.compute_capability or "", 1.0))


def clock_limit(device: DeviceProfile) -> float:
    """Highest over rated clock."""
    return _ABOVE_TYPICAL if device.clock_is_typical else 1.0


def rated_clock_hz(device: DeviceProfile) -> float:
    """As the profile says, else what its fp32 peak asks of 64 lanes."""
    peak = device.peak("fp32") or min(device.peak_flops_per_s.values())
    return device.clock_hz or peak / (2 * 64 * device.cores)
