"""Operations of one layer of the published implementation (NVIDIA DeepLearningExamples, RelPartialLearnableDecoderLayer).

The same mathematics as the reference module, other kernels: q, k and v of memory and segment in one product, content and
position scores as two batched products of views, the relative shift as a padded copy, the mask filled in fp32, softmax in
the scores' own precision. Parameters, activations and gradients all have the precision of products (Apex O2), so that
nothing is cast but the scores. Letters as in `_layer`.
"""

from __future__ import annotations

from txlplan.cost._layer import PROJECTIONS, SCORES, VALUES, Lengths, attention_output, feed_forward
from txlplan.cost._numbers import Shape
from txlplan.cost._section import Section

_WIDE = 4.0
"""Bytes of a score while it is masked."""


def published_layer(section: Section, at: Lengths) -> None:
    """Describe one layer."""
    _projections(section, at)
    _scores(section, at)
    _mask(section, at)
    _values(section, at)
    attention_output(section, at)
    feed_forward(section, at)


def _projections(section: Section, at: Lengths) -> None:
    """Memory joined to the segment, one product for q, k and v of both, one for the positions, and two biased queries."""
    c, d = section.numbers.compute, section.numbers.narrow
    section.run("context", PROJECTIONS, "copy", read=at.BSD * c, written=at.BSD * c, kept=at.BSD * c, dtype=d)
    section.back("context", PROJECTIONS, read=2 * at.BTD * c, written=at.BTD * c, dtype=d)
    section.linear("q k v", PROJECTIONS, rows=at.B * at.C, n=3 * at.W, k=at.model.d_model, kept=0.0)
    section.held = 3 * at.BSW * c
    joined = 3 * at.BSW * c
    section.back("q k v join", PROJECTIONS, "copy", launches=2, read=joined, written=joined, dtype=d)
    section.linear("positions", PROJECTIONS, rows=float(at.S), n=at.W, k=at.model.d_model, kept=0.0, input_gradient=False)
    biased = 2 * at.BTW * c
    section.run("query biases", SCORES, launches=2, read=biased, written=biased, kept=biased + joined, around=0.0, dtype=d)
    section.back("query biases", SCORES, launches=3, read=2 * biased, written=biased / 2, dtype=d)


def _scores(section: Section, at: Lengths) -> None:
    """Content scores by sequence and head, position scores by head alone, shifted by a padded copy, added and scaled."""
    c, d = section.numbers.compute, section.numbers.narrow
    scores, heads = at.BHTS * c, at.model.n_head
    by_sequence: Shape = {"count": at.B * heads, "m": float(at.T), "n": float(at.S), "k": float(at.model.d_head)}
    by_head: Shape = {"count": float(heads), "m": at.rows, "n": float(at.S), "k": float(at.model.d_head)}
    for name, shape, keys in (("content", by_sequence, at.BSW * c), ("position", by_head, float(at.S * at.W) * c)):
        section.product(f"{name} scores", SCORES, "bmm", **shape)
        for around in (keys, at.BTW * c):
            section.gradient(f"{name} scores", SCORES, "bmm", around=around, **shape)
        section.held = section.held + scores
    section.run("relative shift", SCORES, "copy", launches=3, read=2 * scores, written=2 * scores, dtype=d)
    section.back("relative shift", SCORES, "copy", launches=3, read=2 * scores, written=2 * scores, dtype=d)
    section.run("score sum", SCORES, read=2 * scores, written=scores, around=2 * scores, dtype=d)
    section.run("score scale", SCORES, read=scores, written=scores, around=2 * scores, dtype=d)
    section.back("score scale", SCORES, read=scores, written=scores, dtype=d)
    section.held = section.held - scores


def _mask(section: Section, at: Lengths) -> None:
    """Whether anything is masked is asked of the device; then scores are widened, filled and narrowed again; softmax."""
    c, d = section.numbers.compute, section.numbers.narrow
    scores, wide = at.BHTS * c, at.BHTS * _WIDE
    narrow = c != _WIDE
    section.run("mask question", SCORES, launches=2, read=float(at.T * at.S), written=8.0)
    if narrow:
        section.run("score widening", SCORES, "copy", read=scores, written=wide, dtype=d)
        section.back("score widening", SCORES, "copy", read=wide, written=scores, dtype=d)
    section.run("mask fill", SCORES, launches=2, read=wide, written=1.5 * wide, around=2 * wide, dtype="fp32")
    section.back("mask fill", SCORES, launches=2, read=wide, written=1.5 * wide, around=2 * wide, dtype="fp32")
    if narrow:
        section.run("score narrowing", SCORES, "copy", read=wide, written=scores, dtype=d)
        section.back("score narrowing", SCORES, "copy", read=scores, written=wide, dtype=d)
    section.run("attention softmax", SCORES, "softmax", read=scores, written=scores, kept=scores, dtype=d)
    section.back("attention softmax", SCORES, "softmax", read=2 * scores, written=scores, dtype=d)
    section.dropout("attention dropout", SCORES, elements=at.BHTS, size=c, rate=at.model.dropatt, kept_output=True)


def _values(section: Section, at: Lengths) -> None:
    """Values weighted by the probabilities, and gathered from heads."""
    c, d = section.numbers.compute, section.numbers.narrow
    shape: Shape = {
        "count": at.B * at.model.n_head,
        "m": float(at.T),
        "n": float(at.model.d_head),
        "k": float(at.S),
    }
    mixed = at.BTW * c
    section.product("weighted values", VALUES, "bmm", **shape)
    for around in (at.BSW * c, at.BHTS * c):
        section.gradient("weighted values", VALUES, "bmm", around=around, **shape)
    section.run("head gather", VALUES, "copy", read=mixed, written=mixed, kept=mixed, dtype=d)
    section.back("head gather", VALUES, "copy", read=mixed, written=mixed, dtype=d)
