"""Attention by code of our own, forward and backward, for the probe of a CPU.

As training calls it: forward, queries, keys, values and distances have just been computed; backward, they and the probabilities
were kept for long. And as scoring does, which keeps no probabilities: keys and values of the memory, and distances, lie head by
head and were last read a segment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from txlplan.detection._case import DTYPES, Case, filled
from txlplan.detection._cold import cold, in_turn, kept_results
from txlplan.detection._timing import Work
from txlplan.hardware import OpKind, Phase
from txlplan.model._tiles import kept_scores, scored_blocks
from txlplan.nn._attention_code import CompiledScores, has_attention_code
from txlplan.nn._own_code import can_compile
from txlplan.nn._positions import key_mask

_SEGMENTS = ((4, 4, 64, 64, 32), (4, 4, 128, 128, 64), (4, 5, 150, 150, 41), (1, 8, 256, 256, 64), (1, 8, 256, 768, 64))
"""Sequences, heads, queries, memory, head width."""
_FORWARD, _BACKWARD = 3, 6
"""Products of queries and keys."""


def attention_cases(dtype: str) -> Iterator[Case]:
    """Where there is code for it, and a compiler."""
    narrow = DTYPES[dtype] == torch.bfloat16
    if has_attention_code(torch.device("cpu"), DTYPES[dtype]) and can_compile("attention_bf16" if narrow else "attention"):
        for segment in _SEGMENTS:
            yield _case("attention", "forward", dtype, _FORWARD, *segment, partial(_forward, *segment, DTYPES[dtype]))
            yield _case("attention", "backward", dtype, _BACKWARD, *segment, partial(_backward, *segment, DTYPES[dtype]))
            yield _case("scored attention", "forward", dtype, _FORWARD, *segment, partial(_scored, *segment, DTYPES[dtype]))


def _case(
    kind: OpKind,
    phase: Phase,
    dtype: str,
    products: int,
    sequences: int,
    heads: int,
    queries: int,
    memory: int,
    width: int,
    build: Callable[[], Work],
) -> Case:
    blocks = scored_blocks(queries, memory)
    seen = sum(rows * keys for rows, keys in blocks)
    work = 2.0 * products * sequences * heads * seen * width
    shape = (round(queries / len(blocks)), round(seen / queries), width)
    return Case(kind=kind, phase=phase, dtype=dtype, work=work, operations=1, build=build, shape=shape)


def _forward(sequences: int, heads: int, queries: int, memory: int, width: int, dtype: torch.dtype) -> Work:
    scores = _scores(sequences, heads, queries, memory, width, partial(filled, dtype=dtype, device="cpu"))
    masked, elements = _masked(queries, memory), _kept_elements(sequences, heads, queries, memory, dtype)
    kept = kept_results(elements * dtype.itemsize)

    def work() -> None:
        _, probabilities = scores.mix(masked, keep_probabilities=True)
        kept.append(probabilities)

    return work


def _scored(sequences: int, heads: int, queries: int, memory: int, width: int, dtype: torch.dtype) -> Work:
    new = partial(cold, dtype=dtype)
    warm = _scores(sequences, heads, queries, memory, width, partial(filled, dtype=dtype, device="cpu"))
    masked, remembered = _masked(queries, memory), 2 * sequences * memory + memory + queries

    def layer() -> CompiledScores:
        keys, values = (new(sequences, heads, memory, width).transpose(1, 2) for _ in range(2))
        return replace(warm, k_BMHK=keys, v_BMHK=values, r_SHK=new(heads, memory + queries, width).transpose(0, 1))

    layers = in_turn(layer, float(remembered * heads * width * dtype.itemsize))

    def work() -> None:
        next(layers).mix(masked, keep_probabilities=False)

    return work


def _backward(sequences: int, heads: int, queries: int, memory: int, width: int, dtype: torch.dtype) -> Work:
    new = partial(cold, dtype=dtype)
    elements = _kept_elements(sequences, heads, queries, memory, dtype)
    operands = sequences * heads * (2 * (memory + queries) + queries) * width
    kept = in_turn(
        lambda: (_scores(sequences, heads, queries, memory, width, new), new(elements)),
        (elements + operands) * dtype.itemsize,
    )
    of_mixed = filled(sequences, queries, heads, width, dtype=dtype, device="cpu")

    def work() -> None:
        scores, probabilities = next(kept)
        scores.gradients(of_mixed, probabilities)

    return work


def _scores(sequences: int, heads: int, queries: int, memory: int, width: int, new: Callable[..., Tensor]) -> CompiledScores:
    keys, values = new(sequences, memory, 2, heads, width).unbind(2)
    bias = filled(heads, width, dtype=torch.float32, device="cpu")
    return CompiledScores(
        qkv_BT3HK=new(sequences, queries, 3, heads, width),
        k_BMHK=keys,
        v_BMHK=values,
        r_SHK=new(memory + queries, heads, width),
        u_HK=bias,
        v_HK=bias,
    )


def _kept_elements(sequences: int, heads: int, queries: int, memory: int, dtype: torch.dtype) -> int:
    return sequences * heads * kept_scores(queries, memory, narrow=dtype.itemsize == 2)


def _masked(queries: int, memory: int) -> Tensor:
    return key_mask(queries, memory, torch.tensor(memory), None)
