"""What a probe times of scoring and generating on a CPU beside products: operations of which nothing is kept for a backward.

Each reads what was computed just before, and its result is given up for the next; its nominal work counts every element that
is read or written once, as cost/ does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.detection._case import Case, filled
from txlplan.detection._timing import Work
from txlplan.hardware import OpKind

_SIZES = tuple(1 << power for power in (14, 17, 20, 23))
"""Elements of a tensor: 64 KiB to 32 MiB, which few caches hold."""
_COLUMNS, _HEADS, _WIDTH = 256, 4, 64
_LOGITS = ((4, 4096), (64, 4096), (1024, 8192))
"""Rows and words."""


def read_cases() -> Iterator[Case]:
    """In fp32, as residuals, norms and softmax are in any precision."""
    for elements in _SIZES:
        yield from (_softmax(elements), _norm(elements), _elementwise(elements), _copy(elements))
    yield from (_log_softmax(*shape) for shape in _LOGITS)


def _softmax(elements: int) -> Case:
    """Of scores: reads x, writes y."""

    def build() -> Work:
        x = _filled(elements // _COLUMNS, _COLUMNS)
        return lambda: _given_up(torch.softmax(x, -1, dtype=torch.float32))

    return _case("softmax", 2.0 * elements, 1, build)


def _norm(elements: int) -> Case:
    """Layer norm with gain and bias: reads x, writes y."""

    def build() -> Work:
        x, gain, bias = _filled(elements // _COLUMNS, _COLUMNS), _filled(_COLUMNS), _filled(_COLUMNS)
        return lambda: _given_up(F.layer_norm(x, (_COLUMNS,), gain, bias))

    return _case("norm", 2.0 * elements, 1, build)


def _log_softmax(rows: int, words: int) -> Case:
    """Of logits: reads x, writes y."""

    def build() -> Work:
        x = _filled(rows, words)
        return lambda: _given_up(torch.log_softmax(x, -1))

    return _case("loss", 2.0 * rows * words, 1, build)


def _elementwise(elements: int) -> Case:
    """Biases added to queries within their product with keys' and values', and scaled; a residual added; a nonlinearity in
    place: 2 + 2 + 3 + 2 tensors."""

    def build() -> Work:
        queries = _filled(elements // (_HEADS * _WIDTH), 3, _HEADS, _WIDTH)[:, 0]
        biases, x, y = _filled(_HEADS, _WIDTH), _filled(elements), _filled(elements)

        def work() -> None:
            _given_up((queries + biases) * 0.125)
            _given_up(x + y)
            F.relu(x, inplace=True)

        return work

    return _case("elementwise", 9.0 * elements, 4, build)


def _copy(elements: int) -> Case:
    """Keys from their product with queries' and values' to where they are kept, and what is kept moved to the front."""

    def build() -> Work:
        tokens = elements // (_HEADS * _WIDTH)
        keys, held = _filled(1, tokens, 3, _HEADS, _WIDTH)[:, :, 1], _filled(1, _HEADS, 2 * tokens, _WIDTH)

        def work() -> None:
            held[:, :, tokens:] = keys.transpose(1, 2)
            held[:, :, :tokens] = held[:, :, tokens:]

        return work

    return _case("copy", 4.0 * elements, 2, build)


def _filled(*shape: int) -> Tensor:
    return filled(*shape, dtype=torch.float32, device="cpu")


def _given_up(_result: Tensor) -> None:
    """Nothing holds it any longer."""


def _case(kind: OpKind, numbers: float, operations: int, build: Callable[[], Work]) -> Case:
    """That reads and writes so many numbers by so many operations."""
    return Case(kind=kind, phase="read", dtype="fp32", work=4.0 * numbers / operations, operations=operations, build=build)
