"""What a probe times beside products: the operations of a Transformer-XL training step, with their nominal work.

Every case runs its operation the way a training step does: through autograd, on several tensors in turn whose results are
kept until backward, in freshly allocated memory. Its nominal work counts each tensor that an operation reads or writes once,
so that the same accounting in cost/ gives back the measured time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice, repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.detection._attention_cases import attention_cases
from txlplan.detection._case import DTYPES, VALUE, Case, filled, kept
from txlplan.detection._cold import Operands, cold, in_turn
from txlplan.detection._dropout_cases import dropout_cases, random
from txlplan.detection._product_cases import products
from txlplan.detection._read_cases import read_cases
from txlplan.detection._timing import Work
from txlplan.engine.clipping import total_norm
from txlplan.engine.sampling import drawn


def _forward_backward(
    forward: Callable[[Tensor], Tensor],
    inputs: Iterator[Tensor],
    gradient: Tensor,
    count: int,
    weights: tuple[Tensor, ...] = (),
) -> Work:
    """Forward passes of the next `count` inputs, then the backward passes in reverse order, as a stack of layers runs them."""

    def work() -> None:
        chosen = list(islice(inputs, count))
        outputs = [forward(x) for x in chosen]
        while outputs:
            torch.autograd.grad(outputs.pop(), (chosen.pop(), *weights), gradient)

    return work


def _inputs(rows: int, columns: int, dtype: str, device: str, count: int) -> Iterator[Tensor]:
    """Endless ones that want gradients: on a CPU cold, as what backward reads is, elsewhere `count` in turn."""
    new = partial(cold, dtype=DTYPES[dtype]) if device == "cpu" else partial(filled, dtype=DTYPES[dtype], device=device)
    several = in_turn if device == "cpu" else lambda make, _: cycle([make() for _ in range(count)])
    return several(lambda: new(rows, columns).requires_grad_(), float(rows * columns * DTYPES[dtype].itemsize))


def softmax(rows: int, columns: int, dtype: str, device: str) -> Case:
    """Softmax over the last dimension in fp32 whatever the input: reads x, writes y; backward reads y and dy, writes dx."""
    elements, size = rows * columns, DTYPES[dtype].itemsize
    count = kept(elements * 4)

    def build() -> Work:
        gradient = filled(rows, columns, dtype=torch.float32, device=device)
        inputs = _inputs(rows, columns, dtype, device, count)
        return _forward_backward(lambda x: torch.softmax(x, -1, dtype=torch.float32), inputs, gradient, count)

    work = elements * (size + 4 + 4 + 4 + size) / 2
    return Case(kind="softmax", dtype=dtype, work=work, operations=2 * count, build=build)


def norm(rows: int, features: int, dtype: str, device: str) -> Case:
    """Layer norm with gain and bias in fp32: reads x, writes y; backward reads x and dy, writes dx."""
    elements = rows * features
    count = kept(elements * DTYPES[dtype].itemsize)

    def build() -> Work:
        gain, bias = (filled(features, dtype=torch.float32, device=device).requires_grad_() for _ in range(2))
        gradient = filled(rows, features, dtype=DTYPES[dtype], device=device)
        inputs = _inputs(rows, features, dtype, device, count)
        return _forward_backward(lambda x: F.layer_norm(x, (features,), gain, bias), inputs, gradient, count, (gain, bias))

    work = elements * 5 * DTYPES[dtype].itemsize / 2
    return Case(kind="norm", dtype=dtype, work=work, operations=2 * count, build=build)


def elementwise(elements: int, dtype: str, device: str) -> Case:
    """Scale, mask, add, rectify, and what backward does to them; each tensor read or written once an operation."""
    size, columns = DTYPES[dtype].itemsize, 256
    rows = max(1, elements // columns)
    elements = rows * columns
    count = kept(elements * size * 4)

    def build() -> Work:
        new = partial(filled, rows, columns, dtype=DTYPES[dtype], device=device)
        inputs, other, gradient = _inputs(rows, columns, dtype, device, count), new(), new()
        mask = torch.zeros(columns, dtype=torch.bool, device=device)
        return _forward_backward(lambda x: torch.relu((x * 0.5).masked_fill(mask, 0.0) + other), inputs, gradient, count)

    tensors = 2 + 4 + 3 + 2 + 3 + 4 + 2
    """mul 2; masked_fill copies, then fills: 4; add 3; relu 2; back: relu 3, masked_fill 4, mul 2."""
    operations = 9 * count
    return Case(
        kind="elementwise", dtype=dtype, work=elements * size * tensors * count / operations, operations=operations, build=build
    )


def copy(batch: int, dtype: str, device: str) -> Case:
    """What one attention layer moves about, forward and backward: see `_attention_copies`; in 16 bits also its casts.

    With E = batch × 64 × 256 elements in the queries: memory and segment joined (4E read and written), heads brought before
    tokens (q 2E, k 4E, v 4E), scores shifted (4E); back: gradients of q, k and v gathered (15E) and unshifted (8E).
    """
    size, casts = DTYPES[dtype].itemsize, 0 if DTYPES[dtype] is torch.float32 else _CASTS
    elements = batch * _TOKENS * _HEADS * _WIDTH

    def build() -> Work:
        narrow = filled(batch, _TOKENS, _HEADS, _WIDTH, dtype=DTYPES[dtype], device=device)
        copies = _attention_copies(batch, dtype, device)
        weights = _read_in_turn(lambda new: new(*narrow.shape, dtype=torch.float32), 4.0 * elements, device)

        def work() -> None:
            copies()
            kept = [wide.to(narrow.dtype) for wide in islice(weights, casts)]
            kept += [narrow.to(torch.float32) for _ in range(casts)]

        return work

    bytes_moved = elements * (41 * size + 2 * casts * (4 + size))
    operations = 9 + 2 * casts
    return Case(kind="copy", dtype=dtype, work=bytes_moved / operations, operations=operations, build=build)


_TOKENS, _HEADS, _WIDTH = 64, 4, 64
_CASTS = 10
"""Each way: under autocast casts move three bytes for every two that attention copies."""


def _attention_copies(batch: int, dtype: str, device: str) -> Work:
    """Copies as the reference attention makes them. S = 2T keys; scores [B, H, T, S] have 2E elements as K = T."""
    T, S, H, K = _TOKENS, 2 * _TOKENS, _HEADS, _WIDTH  # noqa: N806
    filled_with = partial(filled, dtype=DTYPES[dtype], device=device)
    gradients = [filled_with(batch, *shape) for shape in ((H, T, K), (H, K, S), (H, S, K), (H, T, S))]

    def read(new: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        new = partial(new, batch, dtype=DTYPES[dtype])
        return new(T, H * K), new(T, H * K), new(S, 3, H, K).requires_grad_(), new(H, T, S).requires_grad_()

    layers = _read_in_turn(read, 10.0 * batch * T * H * K * DTYPES[dtype].itemsize, device)

    def work() -> None:
        memory, segment, qkv, scores = next(layers)
        joined = torch.cat([memory, segment], 1)
        q, k, v = qkv.unbind(2)
        outputs = [
            q[:, -T:].transpose(1, 2).contiguous(),
            k.permute(0, 2, 3, 1).contiguous(),
            v.transpose(1, 2).contiguous(),
            F.pad(scores, (1, 0)).view(batch, H, S + 1, T)[:, :, 1:].reshape(batch, H, T, S),
        ]
        torch.autograd.grad(outputs, (qkv, scores), gradients)
        del joined

    return work


def _read_in_turn(read: Callable[[Callable[..., Tensor]], Operands], bytes_each: float, device: str) -> Iterator[Operands]:
    """What is read, by a function that makes it of new tensors: on a CPU cold, elsewhere the same again and again."""
    if device == "cpu":
        return in_turn(lambda: read(cold), bytes_each)
    return repeat(read(partial(filled, device=device)))


def gather(rows: int, words: int, features: int, device: str) -> Case:
    """Embedding and its dense gradient: reads and writes the rows; backward clears the table, then adds the rows to it."""
    rows_bytes, table_bytes = 4.0 * rows * features, 4.0 * words * features

    def build() -> Work:
        table = filled(words, features, dtype=torch.float32, device=device).requires_grad_()
        ids = torch.arange(rows, device=device) % words
        gradient = filled(rows, features, dtype=torch.float32, device=device)
        return _forward_backward(lambda table: F.embedding(ids, table), repeat(table), gradient, 1)

    return Case(kind="gather", dtype="fp32", work=(4 * rows_bytes + table_bytes) / 2, operations=2, build=build)


def loss(rows: int, words: int, device: str) -> Case:
    """Cross-entropy over the vocabulary: reads logits, writes log-probabilities; backward clears, then reads their gradient.

    Six passes over the logits' elements in four operations: the gradient of log-probabilities is mostly zeros, but whole.
    """
    elements = rows * words
    count = kept(elements * 8)

    def build() -> Work:
        inputs = _inputs(rows, words, "fp32", device, count)
        targets = torch.arange(rows, device=device) % words
        gradient = filled(rows, dtype=torch.float32, device=device)
        return _forward_backward(lambda x: F.cross_entropy(x, targets, reduction="none"), inputs, gradient, count)

    return Case(kind="loss", dtype="fp32", work=elements * 4 * 6 / 4, operations=4 * count, build=build)


def sampling(rows: int, words: int, device: str) -> Case:
    """One word drawn for each row, as generating draws it: reads probabilities, writes their sums in float64.

    Six operations: the sums, whether they are finite (two), a random number a row, scaled, and searched for.
    """
    elements = rows * words

    def build() -> Work:
        probability, random = filled(rows, words, dtype=torch.float32, device=device), torch.Generator(device=device)

        def work() -> None:
            drawn(probability, random)

        return work

    return Case(kind="sampling", dtype="fp32", work=12.0 * elements / 6, operations=6, build=build)


def optimizer(elements: int, device: str) -> Case:
    """AdamW, fused, which scales gradients on its way: reads weight, gradient and two states, and writes all four.

    On a CPU of so many tensors that no cache holds them: each was last touched a whole step ago.
    """
    count = kept(elements * 16) if device == "cuda" else max(1, _UPDATED // elements)

    def build() -> Work:
        parameters = [filled(elements, dtype=torch.float32, device=device).requires_grad_() for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, VALUE)
        adam = torch.optim.AdamW(parameters, lr=1e-3, fused=True, capturable=device == "cuda")
        adam.grad_scale = torch.ones((), device=device)  # type: ignore[attr-defined]
        return lambda: adam.step()

    return Case(kind="optimizer", dtype="fp32", work=32.0 * elements, operations=count, build=build)


def gradient_norm(elements: int) -> Case:
    """The norm of gradients, which are read tensor after tensor."""
    count = max(1, _NORMED // elements)

    def build() -> Work:
        gradients = [filled(elements // 512, 512, dtype=torch.float32, device="cpu") for _ in range(count)]

        def work() -> None:
            total_norm(gradients)

        return work

    return Case(kind="optimizer", dtype="fp32", work=4.0 * elements, operations=count, build=build)


_UPDATED, _NORMED = 1 << 23, 1 << 24
"""Parameters of one update, which have three more numbers each, and gradients whose norm is one."""
_SMALL, _MEDIUM, _LARGE, _HUGE = 1 << 16, 1 << 19, 1 << 21, 10 << 20
"""Elements of a tensor: 256 KiB, 2 MiB, 8 MiB and 40 MiB in fp32; glibc maps each request above 32 MiB anew."""


def cases(dtype: str) -> Iterator[Case]:
    """Everything that is timed in one dtype on a CPU."""
    yield from products(dtype)
    for elements in (_SMALL, _MEDIUM, _LARGE, _HUGE):
        yield elementwise(elements, dtype, "cpu")
        yield softmax(elements // 256, 256, dtype, "cpu")
    for elements in (_SMALL, _MEDIUM, _LARGE):
        yield norm(elements // 256, 256, dtype, "cpu")
        yield copy(max(1, elements >> 14), dtype, "cpu")
    yield from attention_cases(dtype)
    yield from dropout_cases(dtype, (_SMALL, _MEDIUM, _LARGE, _HUGE))
    if dtype == "fp32":
        yield from read_cases()
        yield from (gather(rows, words, 256, "cpu") for rows, words in ((256, 256), (2048, 256), (2048, 32_768)))
        yield from (loss(rows, words, "cpu") for rows, words in ((1024, 256), (4096, 256), (256, 32_768)))
        yield from (sampling(rows, words, "cpu") for rows, words in ((1, 256), (8, 256), (8, 32_768)))
        yield from map(random, (_SMALL, _MEDIUM, _LARGE, _HUGE))
        yield optimizer(_LARGE, "cpu")
        yield from (gradient_norm(elements) for elements in (_SMALL, _MEDIUM))
