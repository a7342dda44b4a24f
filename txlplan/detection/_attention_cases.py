"""Attention by code of our own, forward and backward, for the probe of a CPU.

As training calls it: forward, queries, keys, values and distances have just been computed; backward, they and the probabilities
were kept for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from txlplan.detection._case import Case, filled
from txlplan.detection._cold import cold, in_turn, kept_results
from txlplan.detection._timing import Work
from txlplan.hardware import Phase
from txlplan.model._tiles import kept_row, scored_blocks
from txlplan.nn._attention_code import CompiledScores
from txlplan.nn._own_code import can_compile
from txlplan.nn._positions import key_mask

_SEGMENTS = ((4, 4, 64, 64, 32), (4, 4, 128, 128, 64), (4, 5, 150, 150, 41), (1, 8, 256, 256, 64), (1, 8, 256, 768, 64))
"""Sequences, heads, queries, memory, head width."""
_FORWARD, _BACKWARD = 3, 6
"""Products of queries and keys."""
_FLOAT_BYTES = 4


def attention_cases() -> Iterator[Case]:
    """In fp32, where there is a compiler."""
    if can_compile("attention"):
        for segment in _SEGMENTS:
            yield _case("forward", _FORWARD, *segment, partial(_forward, *segment))
            yield _case("backward", _BACKWARD, *segment, partial(_backward, *segment))


def _case(
    phase: Phase, products: int, sequences: int, heads: int, queries: int, memory: int, width: int, build: Callable[[], Work]
) -> Case:
    blocks = scored_blocks(queries, memory)
    seen = sum(rows * keys for rows, keys in blocks)
    work = 2.0 * products * sequences * heads * seen * width
    shape = (round(queries / len(blocks)), round(seen / queries), width)
    return Case(kind="attention", phase=phase, dtype="fp32", work=work, operations=1, build=build, shape=shape)


def _forward(sequences: int, heads: int, queries: int, memory: int, width: int) -> Work:
    scores = _scores(sequences, heads, queries, memory, width, partial(filled, dtype=torch.float32, device="cpu"))
    masked, kept = _masked(queries, memory), kept_results(_kept_elements(sequences, heads, queries, memory) * _FLOAT_BYTES)

    def work() -> None:
        _, probabilities = scores.mix(masked, keep_probabilities=True)
        kept.extend(probabilities)

    return work


def _backward(sequences: int, heads: int, queries: int, memory: int, width: int) -> Work:
    new = partial(cold, dtype=torch.float32)
    elements = _kept_elements(sequences, heads, queries, memory)
    operands = sequences * heads * (2 * (memory + queries) + queries) * width
    kept = in_turn(
        lambda: (_scores(sequences, heads, queries, memory, width, new), [new(elements)]), (elements + operands) * _FLOAT_BYTES
    )
    of_mixed = filled(sequences, heads, queries, width, dtype=torch.float32, device="cpu")

    def work() -> None:
        scores, probabilities = next(kept)
        scores.gradients(of_mixed, probabilities)

    return work


def _scores(sequences: int, heads: int, queries: int, memory: int, width: int, new: Callable[..., Tensor]) -> CompiledScores:
    keys, bias = memory + queries, filled(heads, width, dtype=torch.float32, device="cpu")
    return CompiledScores(
        q_BHTK=new(sequences, queries, heads, width).transpose(1, 2),
        kv_2BHSK=new(sequences, keys, 2, heads, width).permute(2, 0, 3, 1, 4),
        r_HRK=new(keys, heads, width).transpose(0, 1),
        u_HK=bias,
        v_HK=bias,
        keep_BHTS=None,
        kept_scale=1.0,
    )


def _kept_elements(sequences: int, heads: int, queries: int, memory: int) -> int:
    return sequences * heads * sum(rows * kept_row(keys) for rows, keys in scored_blocks(queries, memory))


def _masked(queries: int, memory: int) -> Tensor:
    return key_mask(queries, memory, torch.tensor(memory), None)
