"""What a probe times on a GPU: the operations of a training step that are large enough for one, and those of single tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

from txlplan.detection._case import DTYPES, Case, filled
from txlplan.detection._cases import copy, elementwise, gather, loss, norm, optimizer, softmax
from txlplan.detection._product_cases import backward, few_rows, forward, token_scores, token_values, weight_gradient
from txlplan.detection._timing import Work
from txlplan.model._tiles import distance_rows, padded_keys

_PRODUCTS = (
    (64, 1024, 1024), (256, 512, 512), (1024, 512, 512), (1024, 2048, 512), (4096, 512, 512), (4096, 2048, 512),
    (4096, 512, 2048), (8192, 1024, 1024), (8192, 4096, 1024), (8192, 1024, 4096), (16384, 8192, 2048), (2048, 32768, 512),
    (2400, 410, 410), (2400, 2100, 410), (4800, 1230, 410),
)  # fmt: skip
"""Rows, outputs and inputs of layers; the last with widths that fill no vector, as published models have."""
_FEW = ((1, 512, 512), (1, 4096, 1024), (8, 2048, 512), (16, 1024, 4096))
_ATTENTION = (
    (32, 128, 256, 64), (128, 128, 256, 64), (128, 192, 384, 64), (64, 512, 1024, 64), (512, 64, 128, 32), (512, 192, 384, 64),
    (300, 150, 300, 40),
)  # fmt: skip
"""Sequences × heads, queries, keys, head width."""
_TOKENS = ((8, 512, 64), (128, 256, 64), (1024, 640, 64))
_SMALL, _MEDIUM, _LARGE, _HUGE = 1 << 16, 1 << 20, 1 << 23, 1 << 26
"""Elements of a tensor: 256 KiB, 4 MiB, 32 MiB and 256 MiB in fp32, within the caches of a GPU and far beyond."""


def gpu_cases(dtype: str, device: str = "cuda") -> Iterator[Case]:
    """Everything that is timed in one dtype."""
    for shape in _PRODUCTS:
        yield forward(*shape, dtype, device)
        yield backward(*shape, dtype, device)
        yield weight_gradient(*shape, dtype, device)
    for shape in _ATTENTION:
        yield from (case(*shape, dtype, device) for case in (positions, positions_backward, attention, attention_backward))
    yield from (few_rows(*shape, dtype, device) for shape in _FEW)
    for token in _TOKENS:
        yield from (token_scores(*token, dtype, device), token_values(*token, dtype, device))
    if dtype == "tf32":
        return
    for elements in (_SMALL, _MEDIUM, _LARGE, _HUGE):
        yield elementwise(elements, dtype, device)
        yield softmax(elements // 256, 256, dtype, device)
    yield from (copy(max(1, elements >> 14), dtype, device) for elements in (_SMALL, _MEDIUM, _LARGE))
    if dtype == "fp32":  # what autocast runs in it, and the rest of a step
        yield from (norm(elements // 512, 512, dtype, device) for elements in (_SMALL, _MEDIUM, _LARGE))
        yield from (gather(*size, device) for size in ((2048, 256, 512), (8192, 256, 512), (8192, 32_768, 512)))
        yield from (loss(*size, device) for size in ((2048, 256), (16_384, 256), (4096, 32_768)))
        yield from (optimizer(elements, device) for elements in (_SMALL, _MEDIUM, _LARGE))


def positions(many: int, queries: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Position scores: of each head the queries of all sequences with the distances."""
    shape = (many // _HEADS * queries, distance_rows(keys), width)

    def build() -> Work:
        q, r, _ = _scored(*shape, dtype, device)

        def work() -> None:
            torch.bmm(q, r.transpose(1, 2))

        return work

    return Case(kind="bmm", phase="forward", dtype=dtype, work=_flops(_HEADS, *shape), operations=1, build=build, shape=shape)


def positions_backward(many: int, queries: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Gradients of these queries and distances."""
    shape = (many // _HEADS * queries, distance_rows(keys), width)

    def build() -> Work:
        q, r, scores = _scored(*shape, dtype, device)

        def work() -> None:
            torch.bmm(scores, r)
            torch.bmm(scores.transpose(1, 2), q)

        return work

    return Case(kind="bmm", phase="backward", dtype=dtype, work=_flops(_HEADS, *shape), operations=2, build=build, shape=shape)


_HEADS = 4
"""Of a sequence."""


def _scored(rows: int, columns: int, width: int, dtype: str, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries whose heads lie in their rows, distances and scores, heads first."""
    new = partial(filled, dtype=DTYPES[dtype], device=device)
    return new(rows, _HEADS, width).transpose(0, 1), new(_HEADS, columns, width), new(_HEADS, rows, columns)


def attention(many: int, queries: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Scores with a bias, softmax and weighted values in one kernel: two products."""

    def build() -> Work:
        q, k, v, bias = _operands(many, queries, keys, width, dtype, device)

        def work() -> None:
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

        return work

    shape = (queries, keys, width)
    flops = 2 * _flops(many, *shape)
    return Case(kind="attention", phase="forward", dtype=dtype, work=flops, operations=1, build=build, shape=shape)


def attention_backward(many: int, queries: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Its gradients, that of the bias among them: five products."""

    def build() -> Work:
        operands = [each.detach() for each in _operands(many, queries, keys, width, dtype, device)]
        mixed, logarithms, seed, offset = _aten._scaled_dot_product_efficient_attention(*operands, True)
        known = (torch.ones_like(mixed), *operands, mixed, logarithms, seed, offset)

        def work() -> None:
            _aten._scaled_dot_product_efficient_attention_backward(*known, 0.0, [True] * 4)

        return work

    shape = (queries, keys, width)
    flops = 5 * _flops(many, *shape)
    return Case(kind="attention", phase="backward", dtype=dtype, work=flops, operations=1, build=build, shape=shape)


def _operands(many: int, queries: int, keys: int, width: int, dtype: str, device: str) -> tuple[torch.Tensor, ...]:
    """q, k, v and the bias, as one sequence of many heads. [1, many, …]"""
    new = partial(filled, dtype=DTYPES[dtype], device=device)
    q, k, v = (new(1, many, length, width) for length in (queries, keys, keys))
    bias = new(1, many, queries, padded_keys(keys))[..., :keys]
    return tuple(each.requires_grad_() for each in (q, k, v, bias))


_aten = torch.ops.aten


def _flops(many: int, m: int, n: int, k: int) -> float:
    return 2.0 * many * m * n * k
