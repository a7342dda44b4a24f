"""Operations of one layer of the fast path whose attention is code of our own (txlplan.nn: `_attention_code`).

One product gives q, k and v of the segment, another k and v of the memory: nothing is joined, or copied to put heads apart.
Scores, softmax and values are one call each way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from txlplan.cost._fast_layer import attention_residual, inputs, memory_elements, positions
from txlplan.cost._layer import PROJECTIONS, SCORES, VALUES, Lengths, attention_output, feed_forward
from txlplan.cost._numbers import Shape
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._section import CASTS, SEEDED, Section
from txlplan.model._tiles import kept_scores, scored_blocks

COMPILED_SCORES = "compiled scores"
"""What the backward of checkpointed attention computes again."""
MASK = "int8"
"""Dtype of what dropout keeps of scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """Sums over the blocks of a layer."""

    at: Lengths
    blocks: Sequence[tuple[int, int]]
    narrow: bool

    @property
    def kept(self) -> FloatArray:
        """Elements of the rows of probabilities that are kept."""
        return self.at.B * float(self.at.model.n_head * kept_scores(self.at.T, self.at.M, narrow=self.narrow))

    @property
    def product(self) -> Shape:
        """Queries by keys, one product a sequence, head and block, of their mean size."""
        count, queries = len(self.blocks), self.at.T
        return {
            "count": self.at.B * float(self.at.model.n_head * count),
            "m": queries / count,
            "n": sum(rows * keys for rows, keys in self.blocks) / queries,
            "k": float(self.at.model.d_head),
        }


def compiled_layer(section: Section, at: Lengths) -> None:
    """Describe one layer."""
    scored = _scored(section, at)
    c, narrows = section.numbers.compute, section.numbers.narrows
    positions(section, at)
    inputs(section, at, memory_kept=0.0 if narrows else c)
    _memory(section, at)
    _projections(section, scored)
    _scores_and_values(section, scored)
    attention_output(section, at)
    feed_forward(section, at)


def _memory(section: Section, at: Lengths) -> None:
    """In the precision of products, where it has not that of a norm; the gradient of a normed one goes back."""
    numbers, pre = section.numbers, at.model.norm == "pre"
    narrowed = numbers.narrows if pre else numbers.cast
    before, narrow = memory_elements(at) * (numbers.residual if pre else numbers.wide), memory_elements(at) * numbers.compute
    section.run(
        "memory cast",
        CASTS,
        "copy",
        launches=1.0 if narrowed else 0.0,
        read=before if narrowed else 0.0,
        written=narrow if narrowed else 0.0,
        kept=(narrow if narrowed else 0.0) + (0.0 if numbers.narrows else at.BTD * numbers.residual),
        around=0.0,
        dtype=numbers.narrow,
    )
    if narrowed and pre:
        section.back("memory cast", CASTS, "copy", read=narrow, written=before, dtype=numbers.narrow)
    if not section.own_norm:
        attention_residual(section, at)


def first_input(section: Section, at: Lengths) -> None:
    """That of the first layer as its products take it, and the sum of both gradients.

    It is kept, which is counted where the last norm gives as much, that nothing takes.
    """
    section.cast("segment cast", elements=at.BTD)
    attention_residual(section, at)


def _projections(section: Section, scored: _Scored) -> None:
    """q, k and v of the segment, k and v of the memory, by parts of one weight.

    Backward gives up nothing before its function ends: what the forward pass kept, and gradients.
    """
    at, wide = scored.at, section.numbers.wide
    c, width = section.numbers.compute, at.model.d_model
    weight, segment, memory = 3.0 * at.W * width, 3 * at.BTW * c, 2 * (at.BSW - at.BTW) * c
    inside, gradient = _made_backward_bytes(section, at) + (scored.kept + at.BTW + at.S * at.W) * c, weight * wide
    normed = memory_elements(at) if at.model.norm == "pre" else 0.0 * at.B
    kind: Literal["gemm", "linear"] = "linear" if section.own_linear else "gemm"
    around = inside + memory + at.BTD * c
    shape: Shape = {"count": 1.0, "m": at.rows, "n": 3.0 * at.W, "k": width}
    section.product("queries, keys and values", PROJECTIONS, kind, **shape, kept=segment)
    section.gradient("queries, keys and values", PROJECTIONS, kind, **shape, around=around)
    beside = around + normed * c
    section.gradient(
        "queries, keys and values", PROJECTIONS, kind, **shape, around=beside, gradient=gradient, measured_as="weights"
    )
    shape = {"count": 1.0, "m": at.B * float(at.M), "n": 2.0 * at.W, "k": width}
    section.product("keys and values of memory", PROJECTIONS, kind, **shape, kept=memory)
    section.gradient("keys and values of memory", PROJECTIONS, kind, **shape, around=inside, measured_as="weights")
    if at.model.norm == "pre":
        section.gradient("keys and values of memory", PROJECTIONS, kind, **shape, around=beside)


def _made_backward_bytes(section: Section, at: Lengths) -> FloatArray:
    """Of queries, keys, values, distances and biases, and beside them of the mask of dropout."""
    products = (at.BTW + 2 * at.BSW + at.S * at.W) * section.numbers.compute
    return products + 2.0 * at.W * section.numbers.wide + _mask_bytes(section, at)


def _mask_bytes(section: Section, at: Lengths) -> FloatArray:
    return at.BHTS * float(section.training and at.model.dropatt > 0)


def _scores_and_values(section: Section, scored: _Scored) -> None:
    """Position and content scores, and their softmax, kept; values weighted by what dropout left of it.

    Two thirds and a third of one call each way. Of dropout the bytes of its mask count, which is drawn once each way, read once
    forward and twice backward.
    """
    at, c = scored.at, section.numbers.compute
    mixed, keys, distances, kept = at.BTW * c, at.BSW * c, float(at.S * at.W) * c, scored.kept * c
    around, mask_bytes = _made_backward_bytes(section, at) + mixed, _mask_bytes(section, at)
    drops = at.model.dropatt > 0 and section.training
    if drops:
        section.run("compiled mask", SCORES, "dropout", read=0.0, written=mask_bytes, launches=SEEDED, dtype=MASK)
    section.held = section.held + mask_bytes
    section.attention(
        COMPILED_SCORES,
        SCORES,
        **scored.product | {"launches": 2 / 3},
        operands=mixed + keys + distances,
        kept=kept,
        products=(2, 4),
        around=around + distances,
    )
    if drops:
        dropped = scored.product["count"] * scored.product["m"] * scored.product["n"]
        section.run("attention dropout", SCORES, launches=0.0, read=dropped, written=0.0)
        section.back("attention dropout", SCORES, launches=0.0, read=2 * dropped, written=0.0, around=around + distances)
    gradient = 2 * at.W * section.numbers.wide if at.model.untie_r else 0.0
    section.back("query biases", SCORES, launches=0.0, read=0.0, written=0.0, around=around + distances, gradient=gradient)
    section.attention(
        "compiled values",
        VALUES,
        **scored.product | {"launches": 1 / 3},
        operands=keys,
        kept=mixed + distances,
        products=(1, 2),
        around=around,
    )
    section.held = section.held - mask_bytes
    if drops:
        section.back("compiled mask", SCORES, "dropout", read=0.0, written=mask_bytes, around=around, dtype=MASK)


def compiled_attention(section: Section, at: Lengths) -> None:
    """Of a segment that is scored: one call, which keeps nothing."""
    c = section.numbers.compute
    read = (at.BTW + 2 * at.BSW + at.S * at.W) * c
    shape, mixed = _scored(section, at).product, at.BTW * c
    section.attention(
        "compiled attention", SCORES, **shape, operands=read, kept=mixed, products=(3, 0), kind="scored attention"
    )


def _scored(section: Section, at: Lengths) -> _Scored:
    return _Scored(at=at, blocks=scored_blocks(at.T, at.M), narrow=section.numbers.halved)
