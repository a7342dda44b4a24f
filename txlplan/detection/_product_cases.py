"""Matrix products as training, scoring and generating run them, for the probe: layers forward, layers backward, a tile of
attention, and single tokens.

Their nominal work is 2·m·n·k FLOPs each. A library may be slower in one order of operands than in another, so forward (NT), the
gradient of the input (NN) and that of the weight (TN) are timed apart.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.detection._case import DTYPES, Case, filled, kept
from txlplan.detection._cold import cold, in_turn, kept_results
from txlplan.detection._cpu import read_cpu
from txlplan.detection._match import cache_bytes
from txlplan.detection._timing import Work
from txlplan.hardware import OpKind, Phase
from txlplan.nn._attention_code import has_attention_code
from txlplan.nn._linear_code import input_gradient, linear
from txlplan.nn._linear_code import weight_gradient as gradient_of_weight
from txlplan.nn._own_code import can_compile
from txlplan.nn._products import product
from txlplan.nn._widened import has_fast_bf16

_LARGE = (
    (128, 128, 128), (192, 576, 192), (256, 256, 256), (64, 640, 640), (512, 512, 256), (384, 448, 448),
    (512, 512, 512), (1344, 512, 512), (576, 512, 1536), (512, 4096, 256), (640, 1728, 576),
)  # fmt: skip
_FEW = (
    (1, 320, 640), (1, 640, 1920), (1, 1408, 704), (2, 128, 256), (2, 704, 1408), (2, 5000, 256), (3, 1024, 512),
    (6, 1152, 384), (11, 8000, 128), (14, 320, 320), (15, 576, 192), (16, 1152, 576),
)  # fmt: skip
"""Of layers and words, as models have them: `benchmarks/cpu_products.py` tells how well both lists tell of others."""
_TILES = (
    (2, 32, 64, 64), (4, 64, 128, 64), (8, 64, 256, 32), (2, 128, 256, 64), (4, 128, 384, 64), (2, 96, 320, 64),
    (20, 96, 256, 32), (8, 160, 320, 64), (3, 224, 256, 64), (12, 192, 256, 32),
)  # fmt: skip
"""Heads, queries, keys, head width: training computes a few heads of a segment together, scoring all of them."""
_TOKENS = ((4, 129, 64), (32, 257, 64), (128, 129, 32))
"""Sequences × heads, keys (of the memory, and its own), head width."""
_TOKENS_IN_PLACE = (
    (1, 8, 129, 64), (4, 8, 257, 64), (8, 16, 97, 32), (2, 4, 513, 32), (8, 12, 33, 32), (4, 4, 65, 64), (16, 8, 193, 32),
)  # fmt: skip
"""Sequences, heads, keys (one more than a multiple, as all tokens have: others are faster), head width."""
_TOKEN_POSITIONS = ((4, 4, 129, 64), (8, 16, 257, 64), (12, 4, 513, 32))
"""Heads, sequences, keys, head width."""
_LEAST_IN_TURN_BYTES, _MOST_TURNS = 8 << 20, 128
"""Of operands that are read in turn: beyond a core's own cache, within the last one. Half of that where it is more.

From 32 MiB of them in turn, of a last cache that is taken as 64 MiB, tokens' products took 1.1 to 1.4 times as long as from 8
MiB, of which the cores' own caches of 4 MiB still hold a part (Intel Xeon with AMX, 2 cores, torch 2.13, 2026-11-26)."""


def products(dtype: str) -> Iterator[Case]:
    """All of one dtype on a CPU."""
    own = DTYPES[dtype] == torch.bfloat16 and has_attention_code(torch.device("cpu"), torch.bfloat16)
    for shape in _LARGE:
        yield forward(*shape, dtype, "cpu")
        yield backward(*shape, dtype, "cpu")
        yield weight_gradient(*shape, dtype, "cpu")
        if own and can_compile("attention_bf16"):
            yield from own_linear(*shape, dtype)
    for tile in _TILES:
        yield tile_forward(*tile, dtype)
        yield tile_backward(*tile, dtype)
    yield from (few_rows(*shape, dtype, "cpu") for shape in _FEW)
    for shape in _TOKENS:
        yield token_scores(*shape, dtype, "cpu")
        yield token_values(*shape, dtype, "cpu")
    yield from (token_positions(*shape, dtype, "cpu") for shape in _TOKEN_POSITIONS)
    if DTYPES[dtype].itemsize == 2 and (dtype != "bf16" or has_fast_bf16()):
        yield from (token_attention(*shape, dtype) for shape in _TOKENS_IN_PLACE)


def forward(m: int, n: int, k: int, dtype: str, device: str) -> Case:
    """Linear layers y = x·Wᵀ, one after another: on a CPU of what was computed just before, with cold weights."""
    count = _layers(m, n, k, dtype)

    def build() -> Work:
        new = partial(filled, dtype=DTYPES[dtype], device=device)
        if device == "cpu":
            return _cold_layers(F.linear, new(m, k), (n, k), (m, n), count)
        pairs = [(new(m, k), new(n, k)) for _ in range(count)]
        return lambda: _run(F.linear(x, weight) for x, weight in pairs)

    return _case("gemm", "forward", dtype, 2.0 * m * n * k, count, build, (m, n, k))


def backward(m: int, n: int, k: int, dtype: str, device: str) -> Case:
    """The gradients of the inputs of such layers, each given up for the next."""
    count = _layers(m, n, k, dtype)

    def build() -> Work:
        new = partial(filled, dtype=DTYPES[dtype], device=device)
        if device == "cpu":
            return _cold_layers(torch.mm, new(m, n), (n, k), None, count)
        weights, gradient = [new(n, k) for _ in range(count)], new(m, n)
        return lambda: _run(gradient @ weight for weight in weights)

    return _case("gemm", "backward", dtype, 2.0 * m * n * k, count, build, (m, n, k))


def weight_gradient(m: int, n: int, k: int, dtype: str, device: str) -> Case:
    """The gradients of the weights: on a CPU from cold inputs."""
    count = _layers(m, n, k, dtype)

    def build() -> Work:
        new = partial(filled, dtype=DTYPES[dtype], device=device)
        if device == "cpu":
            return _cold_layers(torch.mm, new(m, n).t(), (m, k), (n, k), count)
        inputs, gradient = [new(m, k) for _ in range(count)], new(m, n)
        return lambda: _run(gradient.t() @ x for x in inputs)

    return _case("gemm", "weights", dtype, 2.0 * m * n * k, count, build, (m, n, k))


def own_linear(m: int, n: int, k: int, dtype: str) -> Iterator[Case]:
    """The same three where attention is by code of our own: by weights of fp32, whose gradients are."""
    count, narrow, wide = _layers(m, n, k, dtype), DTYPES[dtype], torch.float32

    def case(phase: Phase, build: Callable[[], Work]) -> Case:
        return _case("linear", phase, dtype, 2.0 * m * n * k, count, build, (m, n, k))

    new = partial(filled, dtype=narrow, device="cpu")
    yield case("forward", lambda: _cold_layers(linear, new(m, k), (n, k), (m, n), count, wide, narrow))
    yield case("backward", lambda: _cold_layers(input_gradient, new(m, n), (n, k), None, count, wide, narrow))
    yield case("weights", lambda: _cold_layers(gradient_of_weight, new(m, n), (m, k), (n, k), count, narrow, wide))


def _cold_layers(
    operation: Callable[[Tensor, Tensor], Tensor],
    warm: Tensor,
    shape: tuple[int, int],
    kept_shape: tuple[int, int] | None,
    count: int,
    dtype: torch.dtype | None = None,
    kept_dtype: torch.dtype | None = None,
) -> Work:
    """`count` layers a call, of one warm operand with another of `shape` that no cache holds; results are kept, or given up.

    Of the dtype of the first, where nothing else is said.
    """
    dtype, kept_dtype = dtype or warm.dtype, kept_dtype or warm.dtype
    turns = in_turn(lambda: cold(*shape, dtype=dtype), math.prod(shape) * dtype.itemsize)
    results = kept_results(math.prod(kept_shape) * kept_dtype.itemsize) if kept_shape else deque[Tensor](maxlen=1)

    def work() -> None:
        for operand in itertools.islice(turns, count):
            results.append(operation(warm, operand))

    return work


def bare(device: str) -> Case:
    """Dispatch of an operation without gradients, and nothing else."""

    def build() -> Work:
        new = partial(filled, dtype=torch.float32, device=device)
        query, windows = new(1, 1, 1), _windows(_MOST_TURNS, 1, 1, 1, new)
        return lambda: _run(torch.bmm(query, each.transpose(1, 2)) for each in windows)

    return _case("bmm", "forward", "fp32", 2.0, _MOST_TURNS, build, (1, 1, 1))


def between() -> Work:
    """Some of what lies between two products of a token, all of it small: a norm, a cast, a nonlinearity, a sum, a factor."""
    x, gain = (filled(*shape, dtype=torch.float32, device="cpu") for shape in ((1, 256), (256,)))

    def work() -> None:
        x.add(F.relu(F.layer_norm(x, (256,), gain, gain).to(torch.bfloat16))).mul(0.5)

    return work


def _apart(products: Callable[[], Iterator[object]], device: str) -> Work:
    """All products; on a CPU other operations between them, as in a token.

    A product that follows its like finds its code, and what torch and oneDNN keep of it, in the core's caches: between others
    small ones took 7 to 14 us longer than 4 to 20 in fp32, and 18 to 33 longer than 30 in bf16 (2 cores of an Intel Xeon with
    AMX, torch 2.13, 2026-11-26).
    """
    if device != "cpu":
        return lambda: _run(products())
    others = between()

    def work() -> None:
        for _ in products():
            others()

    return work


def few_rows(m: int, n: int, k: int, dtype: str, device: str) -> Case:
    """Layers that read single tokens of `m` rows, each with a weight of its own: a model's lie in the last cache at best."""
    count = _turns(n * k, dtype)

    def build() -> Work:
        new, read = _filled_or_read(dtype, device)
        layers, x = [product(read(n, k), rows=m) for _ in range(count)], new(m, k)
        return _apart(lambda: (layer(x) for layer in layers), device)

    return _case("gemm", "forward", dtype, 2.0 * m * n * k, count, build, (m, n, k), apart=device == "cpu")


def token_scores(many: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Content scores of single tokens, layer after layer: of each sequence and head its query with the keys in a window."""
    count = _turns(many * keys * width, dtype)

    def build() -> Work:
        new, read = _filled_or_read(dtype, device)
        query, windows = new(many, 1, width), _windows(count, many, keys, width, read)
        return _apart(lambda: (torch.bmm(query, each.transpose(1, 2)) for each in windows), device)

    return _case("bmm", "forward", dtype, 2.0 * many * keys * width, count, build, (1, keys, width), apart=device == "cpu")


def token_values(many: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Values in a window, weighted by the probabilities of single tokens."""
    count = _turns(many * keys * width, dtype)

    def build() -> Work:
        new, read = _filled_or_read(dtype, device)
        weights, windows = new(many, 1, keys), _windows(count, many, keys, width, read)
        return _apart(lambda: (torch.bmm(weights, each) for each in windows), device)

    return _case("bmm", "forward", dtype, 2.0 * many * keys * width, count, build, (1, width, keys), apart=device == "cpu")


def token_attention(sequences: int, heads: int, keys: int, width: int, dtype: str) -> Case:
    """Content scores of single tokens, added to those of positions, and values weighted by them: keys and values in windows."""
    many = sequences * heads
    count = _turns(2 * many * keys * width, dtype)

    def build() -> Work:
        new, read = _filled_or_read(dtype, "cpu")
        query, scores = new(sequences, heads, 1, width), new(heads, sequences, keys).transpose(0, 1).unsqueeze(2)
        windows = [each.unflatten(0, (sequences, heads)) for each in _windows(2 * count, many, keys, width, read)]
        layers = list(zip(windows[::2], windows[1::2], strict=True))
        attend = partial(F.scaled_dot_product_attention, query, attn_mask=scores, scale=1.0)
        return _apart(lambda: (attend(keys, values) for keys, values in layers), "cpu")

    return _case("token attention", "forward", dtype, 4.0 * many * keys * width, count, build, (1, keys, width), apart=True)


def token_positions(heads: int, sequences: int, keys: int, width: int, dtype: str, device: str) -> Case:
    """Position scores of single tokens: of each head the queries of all sequences with the distances."""
    count = _turns(heads * keys * width, dtype)

    def build() -> Work:
        new, read = _filled_or_read(dtype, device)
        queries, several = new(sequences, heads, width).transpose(0, 1), [read(heads, keys, width) for _ in range(count)]
        return _apart(lambda: (torch.bmm(queries, each.transpose(1, 2)) for each in several), device)

    work = 2.0 * heads * sequences * keys * width
    return _case("bmm", "forward", dtype, work, count, build, (sequences, keys, width), apart=device == "cpu")


def _windows(count: int, many: int, keys: int, width: int, new: Callable[..., Tensor]) -> list[Tensor]:
    """The last keys (or values) of buffers with half as much room to slide through as a ring has."""
    room = keys + -(-keys // 2)
    return [new(many, room, width)[:, -keys:] for _ in range(count)]


def _filled_or_read(dtype: str, device: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """What makes operands that are used at once, and what makes those that are read in turn: on a CPU parts of one memory."""
    new = partial(filled, dtype=DTYPES[dtype], device=device)
    return new, partial(cold, dtype=DTYPES[dtype]) if device == "cpu" else new


def _turns(elements: int, dtype: str) -> int:
    return int(min(_MOST_TURNS, max(1, _in_turn_bytes() // (elements * DTYPES[dtype].itemsize))))


@lru_cache(maxsize=1)
def _in_turn_bytes() -> int:
    return max(_LEAST_IN_TURN_BYTES, (cache_bytes(read_cpu()) or 0) // 2)


def tile_forward(heads: int, queries: int, keys: int, width: int, dtype: str) -> Case:
    """Position scores, content scores added to them, weighted values: queries and distances have just been used, keys and
    values have not, and scores are kept."""

    def build() -> Work:
        q, distances, _ = _warm_tile(heads, queries, keys, width, dtype)
        keys_values = in_turn(lambda: _keys_values(heads, keys, width, dtype), 2 * _bytes(distances))
        kept = kept_results(heads * queries * keys * DTYPES[dtype].itemsize)

        def work() -> None:
            k, v = next(keys_values)
            scores = torch.bmm(q, distances.transpose(1, 2))
            torch.baddbmm(scores, q, k.transpose(1, 2), out=scores)
            torch.bmm(scores, v)
            kept.append(scores)

        return work

    return _case("bmm", "forward", dtype, 2.0 * heads * queries * keys * width, 3, build, (queries, keys, width))


def tile_backward(heads: int, queries: int, keys: int, width: int, dtype: str) -> Case:
    """Gradients of probabilities, values, keys, queries (twice) and distances; probabilities too were kept for long."""

    def build() -> Work:
        q, distances, gradient = _warm_tile(heads, queries, keys, width, dtype)
        new = partial(cold, heads, queries, keys, dtype=DTYPES[dtype])
        kept = in_turn(lambda: (*_keys_values(heads, keys, width, dtype), new()), 2 * _bytes(distances) + _bytes(gradient))

        def work() -> None:
            k, v, scores = next(kept)
            torch.bmm(scores.transpose(1, 2), q)
            torch.bmm(q, v.transpose(1, 2), out=gradient)
            for _ in range(2):
                torch.bmm(gradient.transpose(1, 2), q)
            for each in (k, distances):
                torch.bmm(gradient, each)

        return work

    return _case("bmm", "backward", dtype, 2.0 * heads * queries * keys * width, 6, build, (queries, keys, width))


def _warm_tile(heads: int, queries: int, keys: int, width: int, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, distances, and room for scores, which all tiles of a layer use."""
    new = partial(filled, heads, dtype=DTYPES[dtype], device="cpu")
    return new(queries, width), new(keys, width), new(queries, keys)


def _keys_values(heads: int, keys: int, width: int, dtype: str) -> tuple[Tensor, Tensor]:
    new = partial(cold, heads, keys, width, dtype=DTYPES[dtype])
    return new(), new()


def _bytes(tensor: Tensor) -> float:
    return float(tensor.numel() * tensor.element_size())


def _layers(m: int, n: int, k: int, dtype: str) -> int:
    return kept((m * k + n * k + m * n) * DTYPES[dtype].itemsize)


def _run(results: Iterable[object]) -> None:
    """All of them, kept until the last is there, as activations are."""
    list(results)


def _case(
    kind: OpKind,
    phase: Phase,
    dtype: str,
    work: float,
    operations: int,
    build: Callable[[], Work],
    shape: tuple[int, int, int],
    *,
    apart: bool = False,
) -> Case:
    return Case(kind=kind, phase=phase, dtype=dtype, work=work, operations=operations, build=build, shape=shape, is_apart=apart)
