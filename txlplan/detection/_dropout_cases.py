"""Dropout on a CPU, for the probe: masks that torch draws, and what code of our own does.

As training calls it: what is dropped, and its gradient, have just been computed; results are kept for long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from txlplan.detection._case import DTYPES, Case, filled
from txlplan.detection._cold import kept_results
from txlplan.detection._timing import Work
from txlplan.nn._dropout import keep_mask
from txlplan.nn._dropout_code import compiled_mask, dropped, new_seed
from txlplan.nn._own_code import can_compile

_RATE = 0.1
_CPU = torch.device("cpu")


def random(elements: int) -> Case:
    """A mask by torch: writes two random bytes an element, compares them in place, and narrows them to one."""

    def build() -> Work:
        def work() -> None:
            keep_mask((elements,), _RATE, _CPU)

        return work

    return Case(kind="random", dtype="fp32", work=9.0 * elements / 3, operations=3, build=build)


def dropout_cases(dtype: str, sizes: Sequence[int]) -> Iterator[Case]:
    """By code of our own, where it can be compiled: of tensors of so many elements, and with fp32 masks alone."""
    if can_compile("dropout") and dtype in ("fp32", "bf16"):
        yield from (_dropped(elements, dtype) for elements in sizes)
        if dtype == "fp32":
            yield from map(_mask, sizes)


def _dropped(elements: int, dtype: str) -> Case:
    """Draws a seed, reads x, writes y; backward reads dy, writes dx."""
    size = DTYPES[dtype].itemsize

    def build() -> Work:
        x = filled(elements, dtype=DTYPES[dtype], device="cpu").requires_grad_()
        gradient, results = filled(elements, dtype=DTYPES[dtype], device="cpu"), kept_results(float(elements * size))

        def work() -> None:
            y = dropped(x, _RATE)
            torch.autograd.grad(y, x, gradient)
            results.append(y.detach())

        return work

    return Case(kind="dropout", dtype=dtype, work=4.0 * elements * size / 3, operations=3, build=build)


def _mask(elements: int) -> Case:
    """Draws a seed, writes a byte for each element."""

    def build() -> Work:
        def work() -> None:
            compiled_mask((elements,), new_seed(), _RATE)

        return work

    return Case(kind="dropout", dtype="int8", work=elements / 2, operations=2, build=build)
