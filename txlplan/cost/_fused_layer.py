"""Operations of one layer of the fast path on CUDA (txlplan.nn: `fused_attention`, then FeedForward).

Sizes are in elements; they are multiplied by `c`, the bytes of an element in products, `r`, those in residuals and norms, or
`f`, those of parameters. Position scores are computed whole, as the bias of torch's memory-efficient attention: one kernel that
reads it and keeps no other score. What it drops it draws again in backward.
"""

from __future__ import annotations

from txlplan.cost._layer import PROJECTIONS, SCORES, VALUES, Lengths, attention_output, feed_forward, norm
from txlplan.cost._numbers import Shape
from txlplan.cost._op_stream import Figure
from txlplan.cost._section import Section

_PADDED_TO = 16
"""torch pads a bias to such multiples of keys, and reads a slice of it."""


def fused_layer(section: Section, at: Lengths) -> None:
    """Describe one layer."""
    _context(section, at)
    _queries_keys_values(section, at)
    fused_scores(section, at)
    attention_output(section, at)
    feed_forward(section, at)


def fused_scores(section: Section, at: Lengths) -> None:
    """Describe what is done with queries, keys, values and distances."""
    _biases(section, at)
    _position_scores(section, at)
    _attention(section, at)


def _context(section: Section, at: Lengths) -> None:
    """Segment and memory, normed (pre) each for itself; joined."""
    r, narrows = section.numbers.residual, section.numbers.narrows
    memory = at.B * float(at.M * at.model.d_model)
    if at.model.norm == "pre":
        norm(section, "attention norm", rows=at.rows, width=at.model.d_model, kept=at.BTD * r)
        norm(
            section,
            "memory norm",
            rows=at.B * at.M,
            width=at.model.d_model,
            kept=0.0 if r == section.numbers.wide else memory * r,
        )
    section.narrow("segment cast", elements=at.BTD)
    kept = 0.0 if narrows else at.BSD * r
    section.run(
        "context", PROJECTIONS, "copy", read=at.BSD * r, written=at.BSD * r, kept=kept + (0.0 if narrows else at.BTD * r)
    )
    section.back("context", PROJECTIONS, read=2 * at.BTD * r, written=at.BTD * r)
    section.held = at.BSD * r - kept
    section.narrow("context cast", elements=at.BSD)


def _queries_keys_values(section: Section, at: Lengths) -> None:
    """q of the segment, k and v of memory and segment, by parts of one weight, whose gradients are joined; W R."""
    c, d, width = section.numbers.compute, section.numbers.narrow, at.model.d_model
    query_weight = float(at.W * width) * section.numbers.wide
    weight = 3 * query_weight
    section.run("weight split", PROJECTIONS, "copy", read=0.0, written=0.0)
    section.back("weight split", PROJECTIONS, "copy", read=weight, written=weight, around=0.0, gradient=weight, taken=weight)
    section.linear("queries", PROJECTIONS, rows=at.rows, n=at.W, k=width, kept=0.0, waiting=query_weight, autocast=False)
    section.held = section.held + at.BTW * c
    section.linear(
        "keys and values",
        PROJECTIONS,
        rows=at.B * at.C,
        n=2.0 * at.W,
        k=width,
        kept=2 * at.BSW * c,
        waiting=2 * query_weight,
        autocast=False,
    )
    section.run("keys and values gather", PROJECTIONS, "copy", launches=0.0, read=0.0, written=0.0, dtype=d)
    joined = 2 * at.BSW * c
    section.back("keys and values gather", PROJECTIONS, "copy", read=joined, written=joined, dtype=d)
    section.narrow("position cast", elements=float(at.S * width), gradient=False)
    section.linear("positions", PROJECTIONS, rows=float(at.S), n=at.W, k=width, kept=0.0, input_gradient=False)
    section.held = section.held + float(at.S * at.W) * c


def _biases(section: Section, at: Lengths) -> None:
    """u and v added to the queries (in fp32 under autocast: the biases are); the second times the scale."""
    c, f, d, mixed = section.numbers.compute, section.numbers.wide, section.numbers.narrow, section.numbers.cast
    kept = at.BTW * c
    gradient = 2 * at.W * f if at.model.untie_r else 0.0
    biased = 2 * at.BTW * f
    section.run("query biases", SCORES, launches=2, read=2 * kept, written=biased, kept=0.0 if mixed else kept, dtype=d)
    section.back(
        "query biases", SCORES, launches=3, read=2 * kept + biased, written=kept, around=biased, dtype=d, gradient=gradient
    )
    if mixed:
        section.run("query casts", SCORES, "copy", launches=2, read=biased, written=2 * kept, kept=kept, dtype=d)
        section.back("query casts", SCORES, "copy", launches=2, read=2 * kept, written=biased, dtype=d)
    section.held = section.held + kept
    section.run("position scale", SCORES, read=kept, written=kept, dtype=d)
    section.back("position scale", SCORES, read=kept, written=kept, dtype=d)


def _position_scores(section: Section, at: Lengths) -> None:
    """One column more than there are keys; its shifted view, masked, is the bias."""
    c, d = section.numbers.compute, section.numbers.narrow
    columns = at.S + 1
    distances, scores = float(columns * at.W) * c, at.BHTS * c
    wide = at.rows * float(at.model.n_head * columns) * c
    section.run("distances", SCORES, "copy", read=distances, written=distances, dtype=d)
    section.back("distances", SCORES, "copy", read=distances, written=distances, dtype=d)
    section.held = section.held + distances
    operands = at.BTW * c + at.B * distances
    section.run("position operands", SCORES, "copy", launches=2, read=operands, written=operands, kept=operands, dtype=d)
    shape: Shape = {
        "count": at.B * at.model.n_head,
        "m": float(at.T),
        "n": float(columns),
        "k": float(at.model.d_head),
    }
    section.product("position scores", SCORES, "bmm", **shape)
    section.back("position sum", SCORES, read=at.B * distances, written=distances, around=at.B * distances, dtype=d)
    for around in (at.B * distances, at.BTW * c):
        section.gradient("position scores", SCORES, "bmm", around=wide + around, **shape)
    section.held = section.held + wide
    missing = -at.S % _PADDED_TO
    section.run("bias mask", SCORES, read=wide, written=scores, kept=0.0 if missing else scores, dtype=d)
    section.back("bias mask", SCORES, launches=3, read=2 * scores, written=scores + 2 * wide, around=scores + wide, dtype=d)
    if missing:
        section.held = section.held + scores
        padded = at.rows * float(at.model.n_head * (at.S + missing)) * c
        section.run("bias padding", SCORES, "copy", read=scores, written=padded, kept=padded, dtype=d)
        section.back("bias padding", SCORES, "copy", read=padded, written=scores, dtype=d)


def _attention(section: Section, at: Lengths) -> None:
    """Content scores, softmax, dropout and weighted values in one kernel each way; backward computes the scores again."""
    c, mixed = section.numbers.compute, at.BTW * section.numbers.compute
    operands = 2 * mixed + 2 * at.BSW * c + at.BHTS * c
    logarithms = at.rows * at.model.n_head * section.numbers.wide
    shape: dict[str, Figure] = {
        "count": at.B * at.model.n_head,
        "m": float(at.T),
        "n": float(at.S),
        "k": float(at.model.d_head),
    }
    section.attention("attention", VALUES, **shape, operands=operands, kept=mixed + logarithms)
