"""Operations of one layer of the fast path on CUDA (txlplan.nn: `fused_attention`, then FeedForward).

Sizes are in elements; they are multiplied by `c`, the bytes of an element in products, `r`, those in residuals and norms, or
`f`, those of parameters. Position scores are computed whole, and written once more as the bias of torch's memory-efficient
attention: one kernel that reads it and keeps no other score. What it drops it draws again in backward.
"""

from __future__ import annotations

from dataclasses import replace

from txlplan.cost._layer import PROJECTIONS, SCORES, VALUES, Lengths, attention_output, feed_forward, norm
from txlplan.cost._numbers import Shape
from txlplan.cost._op_stream import Figure
from txlplan.cost._section import CASTS, Section
from txlplan.model._tiles import distance_rows, padded_keys, padded_width


def fused_layer(section: Section, at: Lengths) -> None:
    """Describe one layer."""
    _context(section, at)
    _queries_keys_values(section, at)
    fused_scores(section, at)
    attention_output(section, at)
    feed_forward(section, at)


def fused_scores(section: Section, at: Lengths, *, pads: bool = False) -> None:
    """Describe what is done with queries, keys, values and distances. `pads`: heads come as narrow as they are, and where that
    is no width that the kernels take, zeros are added."""
    c, d, wide = section.numbers.compute, section.numbers.narrow, _as_wide_as_kernels(at)
    padded = wide.W != at.W
    if padded and pads:
        heads = (wide.BTW + 2 * wide.BSW) * c
        section.run("head padding", SCORES, "copy", launches=3, read=heads, written=heads, kept=heads, dtype=d)
        _held(section, heads)
    _biases(section, wide, at.W)
    _position_scores(section, wide)
    _attention(section, wide)
    if padded:
        mixed = at.BTW * c
        section.run("heads joined", VALUES, "copy", read=mixed, written=mixed, kept=mixed, dtype=d)
        section.back("heads joined", VALUES, "copy", launches=2, read=mixed, written=2 * mixed, dtype=d)


def _held(section: Section, kept: Figure) -> None:
    """What a local variable holds, and autograd too where it trains."""
    if not section.training:
        section.held = section.held + kept


def _as_wide_as_kernels(at: Lengths) -> Lengths:
    """With heads as wide as they are computed."""
    width = padded_width(at.model.d_head)
    return at if width == at.model.d_head else replace(at, model=replace(at.model, d_head=width))


def _context(section: Section, at: Lengths) -> None:
    """Segment and memory, normed (pre) each for itself; joined in the precision of products."""
    c, r, d = section.numbers.compute, section.numbers.residual, section.numbers.narrow
    memory = at.B * float(at.M * at.model.d_model)
    if at.model.norm == "pre":
        norm(section, "attention norm", rows=at.rows, width=at.model.d_model, kept=at.BTD * r)
        cast = 0.0 if r == section.numbers.wide else memory * r
        norm(section, "memory norm", rows=at.B * at.M, width=at.model.d_model, kept=cast)
        section.held = (at.BTD + memory) * r
    section.narrow("segment cast", elements=at.BTD)
    kept = at.BSD * c
    read = memory * (c if at.model.norm == "pre" else r) + at.BTD * c
    kept_input = 0.0 if section.numbers.narrows else at.BTD * r
    section.run("context", PROJECTIONS, "copy", launches=2, read=read, written=kept, kept=kept + kept_input, dtype=d)
    around = at.BSD * c + 2 * at.BTD * c
    section.back("context", PROJECTIONS, read=2 * at.BTD * c, written=at.BTD * c, around=around, dtype=d)


def _queries_keys_values(section: Section, at: Lengths) -> None:
    """q of the segment, k and v of memory and segment, by parts of one weight, whose gradients are joined; W R."""
    c, f, d, width = section.numbers.compute, section.numbers.wide, section.numbers.narrow, at.model.d_model
    parameters, wide = 3.0 * at.W * width, _as_wide_as_kernels(at)
    if section.numbers.cast and section.casts_weights:
        moved, narrow = parameters * f, parameters * c
        kept = narrow if wide.W == at.W else 0.0
        section.run("weight narrowed", CASTS, "copy", read=moved, written=narrow, kept=kept, dtype=d)
        section.back("weight narrowed", CASTS, "copy", read=narrow, written=moved, around=narrow, dtype=d, gradient=moved)
    joined = 3.0 * wide.W * width * c
    moved = 0.0 if wide.W == at.W else joined
    section.run("weight split", PROJECTIONS, "copy", read=moved, written=moved, kept=moved, dtype=d)
    own = 0.0 if section.numbers.cast else parameters * c
    section.back(
        "weight split", PROJECTIONS, "copy", read=joined, written=joined, around=joined - own, gradient=own, taken=joined
    )
    for name, rows, n in (("queries", at.rows, 1.0 * wide.W), ("keys and values", at.B * at.C, 2.0 * wide.W)):
        made: Figure = rows * n * c
        _product(section, name, rows=rows, n=n, k=width, kept=made if name != "queries" else 0.0)
        section.held = section.held + (made if name == "queries" else 0.0)
    section.run("keys and values gather", PROJECTIONS, "copy", launches=0.0, read=0.0, written=0.0, dtype=d)
    gathered = 2 * wide.BSW * c
    section.back("keys and values gather", PROJECTIONS, "copy", read=gathered, written=gathered, dtype=d)
    section.narrow("position cast", elements=float(at.S * width), gradient=False)
    section.linear("positions", PROJECTIONS, rows=float(at.S), n=at.W, k=width, kept=0.0, input_gradient=False)


def _product(section: Section, name: str, *, rows: Figure, n: float, k: float, kept: Figure) -> None:
    """A linear layer whose operands are in the precision of products already: its gradients wait to be joined."""
    c = section.numbers.compute
    out_bytes, in_bytes = rows * n * c, rows * k * c
    section.product(name, PROJECTIONS, m=rows, n=n, k=k, kept=kept)
    section.gradient(name, PROJECTIONS, m=rows, n=n, k=k, around=out_bytes + in_bytes)
    section.gradient(name, PROJECTIONS, m=rows, n=n, k=k, around=out_bytes + in_bytes, left=n * k * c, measured_as="weights")


def _biases(section: Section, at: Lengths, width: int) -> None:
    """u and v, so `width` together, added to the queries, which are read no more."""
    c, f, d = section.numbers.compute, section.numbers.wide, section.numbers.narrow
    both, casts = 2 * at.BTW * c, 2 if section.numbers.cast else 0
    gradient = 2 * width * f if at.model.untie_r else 0.0
    section.run("query biases", SCORES, launches=2 + casts, read=both, written=both, kept=both, dtype=d)
    _held(section, both)
    section.back(
        "query biases", SCORES, launches=3 + casts, read=2 * both, written=at.BTW * c, around=both, dtype=d, gradient=gradient
    )


def _position_scores(section: Section, at: Lengths) -> None:
    """More columns than there are keys; of them a shifted view, masked, is the bias."""
    c, d = section.numbers.compute, section.numbers.narrow
    columns = distance_rows(at.S)
    plain, distances, scores = float(at.S * at.W) * c, float(columns * at.W) * c, at.BHTS * c
    wide, bias = at.rows * float(at.model.n_head * columns) * c, at.rows * float(at.model.n_head * padded_keys(at.S)) * c
    section.run("distances", SCORES, launches=2, read=2 * plain, written=plain + distances, kept=distances, dtype=d)
    _held(section, distances)
    section.back("distances", SCORES, launches=2, read=distances + plain, written=2 * plain, dtype=d)
    shape: Shape = {"count": float(at.model.n_head), "m": at.rows, "n": float(columns), "k": float(at.model.d_head)}
    section.product("position scores", SCORES, "bmm", **shape)
    for around in (distances, at.BTW * c):
        section.gradient("position scores", SCORES, "bmm", around=wide + around, **shape)
    section.held = section.held + wide
    section.run("bias", SCORES, launches=2, read=scores, written=scores, kept=bias, dtype=d)
    _held(section, bias)
    section.back("bias", SCORES, launches=2, read=scores, written=wide + scores, around=bias + wide, dtype=d)


def _attention(section: Section, at: Lengths) -> None:
    """Content scores, softmax, dropout and weighted values in one kernel each way; backward computes the scores again."""
    c, mixed = section.numbers.compute, at.BTW * section.numbers.compute
    bias = at.rows * float(at.model.n_head * padded_keys(at.S)) * c
    operands = 2 * mixed + 2 * at.BSW * c + bias
    logarithms = at.rows * at.model.n_head * section.numbers.wide
    shape: Shape = {
        "count": at.B * at.model.n_head,
        "m": float(at.T),
        "n": float(at.S),
        "k": float(at.model.d_head),
    }
    section.attention("attention", VALUES, **shape, operands=operands, kept=mixed + logarithms)
