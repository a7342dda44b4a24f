"""Energy of a step, bounded by idle and rated power. Derived, not measured, until a device says what it drew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from txlplan.cost._op_stream import FloatArray
from txlplan.estimates import Range
from txlplan.hardware import DeviceProfile


def energy_j_per_step(
    device: DeviceProfile, n_devices: int, step: Range, busy_share: float, reached_share: float
) -> Range | None:
    """Energy of `n_devices` over one step; None where the rated power is unknown.

    Power is taken as linear between idle and rated in the share of the step that the device computes (`busy_share`, 0 to 1).
    What a busy device draws above idle lies between that of its units at the rates they reach, each in proportion to its rate
    (Hong and Kim 2010, "An integrated GPU power and performance model", §4), and all that the board may draw. So the low end is
    the shortest step, in which power is linear in `busy_share` × `reached_share` (of the peaks of compute or memory that bound
    operations, what they reach, 0 to 1), and the high end rated power over the longest step.
    """
    idle_w = device.waiting_w()
    if device.power_w is None or idle_w is None:
        return None
    busy = min(max(busy_share, 0.0), 1.0)
    likely_w, low_w = (idle_w + (device.power_w - idle_w) * share for share in (busy, busy * min(max(reached_share, 0.0), 1.0)))
    return Range(
        value=n_devices * likely_w * step.value,
        low=n_devices * low_w * step.low,
        high=n_devices * device.power_w * step.high,
    )


def energy_j(
    device: DeviceProfile, n_devices: npt.NDArray[np.int64], step_s: FloatArray, busy_s: FloatArray
) -> FloatArray | None:
    """The value of `energy_j_per_step` for many plans, [candidates]."""
    idle_w = device.waiting_w()
    if device.power_w is None or idle_w is None:
        return None
    joules: FloatArray = n_devices * (idle_w * step_s + (device.power_w - idle_w) * np.clip(busy_s, 0.0, step_s))
    return joules
