"""Operations of reading text with kept keys and values (txlplan.nn.Inference): score a segment, or one token of each sequence.

Sizes are in elements; they are multiplied by `c`, the bytes of an element in products, or `f`, those in residuals, norms
and softmax. Weights are in the precision of products already, and the positions W_r R are made once a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from txlplan.cost._compiled_layer import compiled_attention
from txlplan.cost._ends import JOINED, SOFTMAX, RowsMadeUp, embedded_words, log_probabilities, loss, outputs
from txlplan.cost._fused_layer import fused_scores
from txlplan.cost._layer import FEED_FORWARD, PROJECTIONS, RESIDUAL, SCORES, VALUES, Lengths, norm
from txlplan.cost._numbers import Numbers, Shape
from txlplan.cost._op_stream import Figure, FloatArray, Op, OpStream
from txlplan.cost._section import Section
from txlplan.model import ModelConfig
from txlplan.model._parameters import has_projections, table_shapes
from txlplan.model._tiles import FEW_ROWS, SUMMED_ROWS, packed_rows

KEPT, STREAMED, MEETING = "kept keys and values", "weights and memory", "meeting of threads"
LAYER_MEETINGS, HEAD_MEETINGS = 5, 3
"""How often threads wait for each other (token.cpp): in a layer after each product and after attention, in the softmax before
the logits, after them, and at its end."""
_CALLS = 6
"""Operations that take the host as long as the calls of compiled code, and what leads to them: of narrow layers 74 us a token,
in which reading and drawing a word has 10 others, of 4.8 us each (2 cores of an Intel Xeon with AMX, torch 2.13,
2026-11-27)."""
Product = tuple[int, int]
"""Outputs and inputs."""


def capacity(model: ModelConfig, longest: int) -> int:
    """Slots of the buffers when `longest` tokens are read at once: the memory, and at least half of it to slide through."""
    return model.mem_len + longest * max(1, -(-model.mem_len // (2 * longest)))


def kept_bytes(model: ModelConfig, rows: FloatArray, longest: int, itemsize: float) -> FloatArray:
    """Keys and values of all layers, and W_r R of every distance."""
    width = model.n_head * model.d_head
    distances = (model.mem_len + longest) * width
    kept: FloatArray = model.n_layer * (2.0 * rows * capacity(model, longest) * width + distances) * itemsize
    return kept


def prompt_bytes(model: ModelConfig, prompt_len: int, itemsize: float) -> float:
    """What reading a prompt segment by segment leaves for the first token: its keys and values beside those of all rows, and
    W_r R of as many distances as it looks back, beside those of a token."""
    width = model.n_layer * model.n_head * model.d_head
    tokens = min(prompt_len, capacity(model, model.tgt_len)) if prompt_len > 1 else 0
    return (2.0 * tokens + min(tokens, model.mem_len + model.tgt_len)) * width * itemsize


def reading(
    first: Section,
    layers: Section,
    last: Section,
    at: Lengths,
    tail_shares: Sequence[float],
    *,
    made_up: RowsMadeUp = "no",
    adds_biases: bool = False,
    fused: bool = False,
    own_attention: bool = False,
    in_place: bool = False,
    packs: bool = False,
) -> None:
    """Describe one segment (at.T tokens; scored) or one token (generated) against a full memory.

    `adds_biases`: products of single tokens of few rows are cut, and add their biases by operations of their own.
    `packs`: but for those whose weights are packed, which add biases and apply nonlinearities themselves.
    `fused`: a segment's rows attend together, by the kernels of training on CUDA; `own_attention`: by code of our own.
    `in_place`: a single token's too, by a CPU's.
    """
    embedded_words(first, at)
    _slide(first, at)
    if at.T > 1:
        _layer(layers, at, _attend_fused if fused else compiled_attention if own_attention else _attend_segment)
        loss(last, at, tail_shares, made_up=made_up)
        return
    _layer(layers, at, _attend_in_place if in_place else _attend_token, packs=packs)
    log_probabilities(last, at, join=False)
    if adds_biases:
        d_model, d_inner = at.model.d_model, at.model.d_inner
        _biases(layers, FEED_FORWARD, [(d_inner, d_model), (d_model, d_inner)], at, packs=packs)
        _biases(last, SOFTMAX, _head_products(at.model)[: at.model.n_clusters], at, packs=packs)


def _biases(section: Section, group: str, products: Sequence[Product], at: Lengths, *, packs: bool) -> None:
    """Of products with so many outputs and inputs, those of few rows that are not packed."""
    rows = at.B
    cut = [(rows <= FEW_ROWS) - _packed(rows, n * k, section.numbers, packs=packs) for n, k in products]
    moved = sum(rows * n * each for (n, _), each in zip(products, cut, strict=True)) * section.numbers.compute
    section.run("biases", group, launches=sum(cut), read=moved, written=moved, around=0.0)


def packed_bytes(model: ModelConfig, rows: FloatArray, numbers: Numbers) -> FloatArray:
    """Second copies of weights that single tokens of `rows` rows read, where a CPU has units for bf16."""
    width = model.n_head * model.d_head
    of_a_layer = [(3 * width, model.d_model), (model.d_model, width)]
    of_a_layer += [(model.d_inner, model.d_model), (model.d_model, model.d_inner)]
    products = [*_head_products(model), *(of_a_layer * model.n_layer)]
    elements: FloatArray = sum(_packed(rows, n * k, numbers, packs=True) * (n * k) for n, k in products)  # type: ignore[assignment]
    return elements * numbers.compute


def _head_products(model: ModelConfig) -> list[Product]:
    """Of the logits of every cluster, then of the projections before them."""
    widths = model.cluster_widths
    logits = [(outputs(model, cluster), width) for cluster, width in enumerate(widths)]
    return logits + ([(width, model.d_model) for width in widths] if has_projections(model) else [])


def _packed(rows: FloatArray, elements: float, numbers: Numbers, *, packs: bool) -> FloatArray:
    """1 where a weight of so many elements is packed for so many rows, else 0."""
    chosen = packed_rows(elements, narrow=numbers.halved) if packs else range(0)
    return np.where((rows >= chosen.start) & (rows < chosen.stop), 1.0, 0.0)


def streamed(at: Lengths, numbers: Numbers) -> Op:
    """Every weight, key and value read once a token, at the memory's bandwidth for reading as far as the cache misses them.

    The products of a CPU, whose measured efficiency is that of operands in cache, are fed so while they compute. (Compiled sums
    tell themselves what they read, see `as_summed`.)
    """
    model = at.model
    weights = model.n_layer * (4 * at.W * model.d_model + 2 * model.d_model * model.d_inner)
    words = sum(
        words * width + (model.d_model * width if has_projections(model) else 0) for words, width in table_shapes(model)
    )
    kept = model.n_layer * at.S * at.W * (2 * at.B + 1)
    return Op(
        name="weights, keys and values",
        group=STREAMED,
        section="embedding",
        kind="summed",
        phase="forward",
        dtype=numbers.dtype,
        m=1.0,
        n=1.0,
        k=1.0,
        bytes_moved=(weights + words + kept) * numbers.compute,
        launches=0.0,
    )


def reads_tokens(stream: OpStream) -> bool:
    """Whether it is of single tokens that a CPU reads."""
    return STREAMED in stream.groups


def meetings(stream: OpStream) -> FloatArray:
    """Where threads of compiled code meet, how often, [ops, candidates]; 0 elsewhere."""
    met: FloatArray = stream.launches * np.array([group == MEETING for group in stream.groups])[:, None]
    return met


def compiled_calls(rows: FloatArray, layers: int) -> tuple[Op, ...]:
    """What compiled code of few rows does beside its sums: Python calls it, for all layers and for the softmax, and its threads
    meet."""
    few = (rows <= SUMMED_ROWS).astype(float)

    def operation(name: str, group: str, section: str, launches: int, dispatch: float, repeat: float = 1.0) -> Op:
        """Where rows are few."""
        return Op(
            name=name,
            group=group,
            section=section,
            kind="copy",
            phase="forward",
            dtype="fp32",
            launches=launches * few,
            dispatch=dispatch,
            repeat=repeat,
        )

    return (
        operation("calls of compiled code", STREAMED, "embedding", _CALLS, 1.0),
        operation("meetings in a layer", MEETING, "layers", LAYER_MEETINGS, 0.0, layers),
        operation("meetings in the softmax", MEETING, "softmax", HEAD_MEETINGS, 0.0),
    )


def as_summed(op: Op, rows: FloatArray) -> tuple[Op, ...]:
    """A product of a layer or the softmax in code compiled for a CPU: sums where rows are few, which read what they need
    themselves, so that nothing is streamed apart. All else is as it was, but that log-probabilities of clusters are not joined:
    logits are read three times, not once, then written where they belong; joining reads and writes each twice."""
    few = (rows <= SUMMED_ROWS).astype(float)
    if op.group == STREAMED:
        return (_share(op, 1.0 - few),)
    if op.name == JOINED:
        return (_share(op, 1.0 - few / 2),)
    if op.kind not in ("gemm", "bmm") or op.section == "embedding":
        return (op,)
    return (_share(replace(op, kind="summed"), few), _share(op, 1.0 - few))


def _share(op: Op, share: FloatArray) -> Op:
    return replace(op, flops=op.flops * share, bytes_moved=op.bytes_moved * share, launches=op.launches * share)


def _slide(section: Section, at: Lengths) -> None:
    """The memory copied to the buffers' beginning, by the share of a step that one such copy falls on."""
    c, model = section.numbers.compute, at.model
    every = (capacity(model, at.T) - model.mem_len) / at.T
    layer = at.B * float(at.M * at.W) * c
    moved = 4 * model.n_layer * layer / every
    launches = 4 * model.n_layer / every
    dtype = section.numbers.narrow
    section.run("slide", KEPT, "copy", launches=launches, read=moved, written=moved, around=layer, dtype=dtype)


def _layer(section: Section, at: Lengths, attend: Callable[[Section, Lengths], None], *, packs: bool = False) -> None:
    c, d, model = section.numbers.compute, section.numbers.narrow, at.model
    if model.norm == "pre":
        norm(section, "attention norm", rows=at.rows, width=model.d_model, kept=0.0)
    hidden = at.BTD * section.numbers.wide
    section.held = 2 * hidden
    section.cast("input cast", elements=at.BTD)
    section.linear("q k v", PROJECTIONS, rows=at.rows, n=3 * at.W, k=model.d_model, kept=0.0)
    section.held = hidden + 4 * at.BTW * c
    section.run("keep", KEPT, "copy", launches=2, read=2 * at.BTW * c, written=2 * at.BTW * c, around=0.0, dtype=d)
    attend(section, at)
    _after_attention(section, at, packs=packs)


def _attend_fused(section: Section, at: Lengths) -> None:
    fused_scores(section, at, pads=True)


def _after_attention(section: Section, at: Lengths, *, packs: bool) -> None:
    """As `attention_output` and `feed_forward` of a layer that is trained; the layer's input, the weighted values and the sum
    are alive throughout, and what the inner product reads until its result is there."""
    c, f, d, model = section.numbers.compute, section.numbers.wide, section.numbers.narrow, at.model
    hidden, narrow, inner = at.BTD * f, at.BTD * c, at.BTF * c
    given = hidden + at.BTW * c
    section.held = given
    section.linear("attention output", PROJECTIONS, rows=at.rows, n=model.d_model, k=at.W, kept=0.0)
    _residual(section, "attention", at)
    given = given + hidden
    normed = hidden if model.norm == "pre" else 0.0 * hidden
    section.held = given
    if model.norm == "pre":
        norm(section, "feed-forward norm", rows=at.rows, width=model.d_model, kept=0.0)
    section.held = given + normed
    section.cast("feed-forward cast", elements=at.BTD)
    section.held = given + normed + (narrow if section.numbers.cast else 0.0)
    section.linear("inner", FEED_FORWARD, rows=at.rows, n=model.d_inner, k=model.d_model, kept=0.0, bias=True)
    section.held = given + normed + inner
    around = inner if model.activation == "gelu" else 0.0
    apart = 1.0 - _packed(at.rows, model.d_inner * model.d_model, section.numbers, packs=packs)
    moved = inner * apart
    section.run(model.activation, FEED_FORWARD, launches=apart, read=moved, written=moved, around=around, dtype=d)
    section.held = given + inner
    section.linear("outer", FEED_FORWARD, rows=at.rows, n=model.d_model, k=model.d_inner, kept=0.0, bias=True)
    section.held = given
    _residual(section, "feed-forward", at)


def _residual(section: Section, name: str, at: Lengths) -> None:
    """The sum with what went in, beside what a product gave, and normed after (post)."""
    f, narrow = section.numbers.wide, at.BTD * section.numbers.compute
    section.run(f"{name} residual", RESIDUAL, read=at.BTD * f + narrow, written=at.BTD * f, around=at.BTD * f + narrow)
    if at.model.norm == "post":
        norm(section, f"{name} norm", rows=at.rows, width=at.model.d_model, kept=0.0)


def _queries(section: Section, at: Lengths) -> None:
    """u and v added, scaled, in the precision of products; a segment does so row by row."""
    c, f = section.numbers.compute, section.numbers.wide
    rows: Figure = 1.0 if at.T == 1 else at.B
    casts = 1 if section.numbers.cast else 0
    read, written = at.BTW * (4 * f + casts * (c + 2 * f)), at.BTW * (4 * f + casts * (f + 2 * c))
    section.run("query biases", SCORES, launches=rows * (4 + 3 * casts), read=read, written=written, around=2 * at.BTW * f)


def _attend_token(section: Section, at: Lengths) -> None:
    """All rows together: position scores of a head's rows are one product."""
    _queries(section, at)
    c, d, heads, width = section.numbers.compute, section.numbers.narrow, at.model.n_head, float(at.model.d_head)
    scores, keys = at.BHTS * c, float(at.S)
    section.held = section.held + 2 * scores
    section.product("content scores", SCORES, "bmm", count=at.B * heads, m=1.0, n=keys, k=width)
    section.product("position scores", SCORES, "bmm", count=float(heads), m=at.B, n=keys, k=width)
    section.run("score sum", SCORES, read=2 * scores, written=scores, around=0.0, dtype=d)
    _softmax(section, at, 1.0)
    section.product("weighted values", VALUES, "bmm", count=at.B * heads, m=1.0, n=width, k=keys)


def _attend_in_place(section: Section, at: Lengths) -> None:
    """The same with all but the position scores in one call, half of it for scores and half for values."""
    _queries(section, at)
    c, heads, width, keys = section.numbers.compute, at.model.n_head, float(at.model.d_head), float(at.S)
    section.held = section.held + at.BHTS * c
    section.product("position scores", SCORES, "bmm", count=float(heads), m=at.B, n=keys, k=width)
    kept, operands = at.BTW * c / 2, (at.BTW + 2 * at.BSW + at.BHTS) * c / 2
    shape: Shape = {"count": at.B * heads, "m": 1.0, "n": keys, "k": width, "launches": 0.5}
    for name, group in (("content scores", SCORES), ("weighted values", VALUES)):
        section.attention(name, group, **shape, operands=operands, kept=kept, products=(1, 0), kind="token attention")


def _attend_segment(section: Section, at: Lengths) -> None:
    """Row by row, so that the scores of one row alone are alive: unaligned, then aligned with content scores added.

    The products of values too are told by queries, keys and width, as efficiencies of tiles are measured.
    """
    _queries(section, at)
    c, d, model = section.numbers.compute, section.numbers.narrow, at.model
    shape: dict[str, Figure] = {"count": at.B * model.n_head, "m": float(at.T)}
    keys, width, row = float(at.S), float(model.d_head), at.BHTS / at.B * c
    section.held = section.held + row + 2 * at.BTW / at.B * c
    section.product("position scores", SCORES, "bmm", **shape, n=keys, k=width, launches=at.B)
    section.product("content scores", SCORES, "bmm", **shape, n=keys, k=width, launches=at.B)
    section.held = section.held + row
    section.run("aligned scores", SCORES, "copy", launches=at.B, read=at.BHTS * c, written=at.BHTS * c, around=0.0, dtype=d)
    hidden = (at.BHTS if model.same_length else at.rows * at.T * model.n_head) * c
    section.run("score mask", SCORES, launches=at.B, read=hidden, written=hidden, around=0.0, dtype=d)
    _softmax(section, at, at.B)
    section.product("weighted values", VALUES, "bmm", **shape, n=keys, k=width, launches=at.B)
    mixed = at.BTW * c
    section.run("row gather", VALUES, "copy", launches=2 * at.B, read=2 * mixed, written=2 * mixed, around=mixed, dtype=d)


def _softmax(section: Section, at: Lengths, calls: Figure) -> None:
    """Softmax over keys in fp32, and back to the precision of products."""
    c, f, d = section.numbers.compute, section.numbers.wide, section.numbers.narrow
    around = at.BHTS / calls * f
    section.run("attention softmax", SCORES, "softmax", launches=calls, read=at.BHTS * c, written=at.BHTS * f, around=around)
    if section.numbers.cast:
        moved, beside = at.BHTS * f, at.BHTS / calls * (f + c)
        section.run("probability cast", SCORES, "copy", launches=calls, read=moved, written=at.BHTS * c, around=beside, dtype=d)
    section.held = section.held + at.BHTS / calls * c
