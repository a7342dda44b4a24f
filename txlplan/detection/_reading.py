"""How fast the code that reads tokens gets weights: few, which the cores' own caches hold, and more than any cache holds."""

from __future__ import annotations

import torch

from txlplan.detection._cold import cold
from txlplan.detection._timing import Work
from txlplan.nn._token_code import summed_product

_INPUTS = 1024
_TIMES_BEFORE = 3
"""Until a cache that holds a part of it holds as much as it will."""
READ_BYTES = tuple(1 << power for power in range(21, 29))
"""2 MiB, which two cores of a server hold in caches of their own, to 256 MiB, the weights of 64 million parameters."""


def reading(size: int) -> Work:
    """A product of one row with so many bytes of weights in fp32, the same at each call, in pages as they come."""
    product = summed_product(cold(size // 4 // _INPUTS, _INPUTS, dtype=torch.float32), torch.ones(1, _INPUTS))

    def work() -> None:
        product()

    for _ in range(_TIMES_BEFORE):
        work()
    return work
