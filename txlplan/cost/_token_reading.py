"""How long compiled sums of few rows wait for what they read: not for a core's own caches, but for the last one and for memory.

A token reads all its weights, keys and values, in the same order as the token before. What the cores' own caches do not hold
of them comes from the last one at a fraction of the rate at which it could be added up, and what that does not hold from
memory. On 2 cores of an Intel Xeon with AMX a product of one row in fp32 read up to 3 MiB again and again at 190 to 270 GB/s,
6 to 64 MiB at 53 to 64, and 256 MiB at 37 to 39 (torch 2.13, 2026-11-27).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from txlplan.cost._op_stream import FloatArray
from txlplan.hardware import DeviceProfile, StackProfile, TokenReading

_MEMORY_KNEE = 2.0
"""Of sums whose weights come from memory: by root of the sum of squares of reading and adding up. Tokens of
`original-wt103-base`, 1 and 8 rows in fp32 and bf16, are predicted 0 to 9 % off by it (docs/concepts/estimates.md says how they
were read: 2 cores of an Intel Xeon with AMX, 2026-11-26)."""


def token_readings(device: DeviceProfile, stack: StackProfile, threads: int | None) -> tuple[TokenReading, ...]:
    """Those of so many threads, or where there are none those of the most; none of another device's."""
    points = stack.token_reading if stack.measured_device == device.id else ()
    wanted = threads or device.cores
    most = max((point.threads for point in points), default=wanted)
    chosen = [point for point in points if point.threads == wanted] or [point for point in points if point.threads == most]
    return tuple(sorted(chosen, key=lambda point: point.read_bytes))


def read_s_per_byte(points: Sequence[TokenReading], in_turn_bytes: FloatArray) -> FloatArray:
    """Of sums whose step reads `in_turn_bytes`: between points by the logarithm of that, the same beyond them."""
    sizes, seconds = zip(*((point.read_bytes, 1 / point.bandwidth_bytes_per_s) for point in points), strict=True)
    found: FloatArray = np.interp(np.log(np.maximum(in_turn_bytes, 1.0)), np.log(sizes), seconds)
    return found


def sums_knee(missed: FloatArray) -> FloatArray:
    """How sums overlap with the reading of their weights, of which the last cache misses a share, see `overlapped`. That the
    share tells by how much is a choice.

    What a cache holds is read while sums are added up: products of 512 inputs and 8 rows took the longer of both, in fp32 53 to
    60 GB/s of 6 to 32 MiB where one row was read at 55 to 64, in bf16 27 to 32 as in the cores' own caches.
    """
    knee: FloatArray = np.where(missed > 0, _MEMORY_KNEE / np.where(missed > 0, missed, 1.0), np.inf)
    return knee
