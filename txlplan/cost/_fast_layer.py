"""Operations of one layer of the fast path (txlplan.nn: `tiled_attention`, then FeedForward).

Sizes are in elements; they are multiplied by `c`, the bytes of an element in products, or `r`, those in residuals and norms.
Attention runs a tile of scores at a time (`txlplan.model._tiles`): an operation here stands for that of all
tiles, and `launches` for their number, so that its efficiency is that of one tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from txlplan.cost._layer import PROJECTIONS, SCORES, VALUES, Lengths, attention_output, feed_forward, norm
from txlplan.cost._numbers import Shape
from txlplan.cost._op_stream import Figure, FloatArray
from txlplan.cost._section import MASKED_BY, Section, masked
from txlplan.model._tiles import VECTOR, Block, blocks, distance_rows

TILE_DISPATCH = 0.35
"""Host time of an operation that is made anew for each tile, in which no module is called, over that of others: 0.38 forward
and 0.31 backward (`benchmarks/training.py dispatch`, Intel Xeon with AMX, one thread, torch 2.13, 2026-11-26)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tiled:
    """Sums over the tiles of a layer, [candidates] where they grow with the micro-batch."""

    at: Lengths
    blocks: Sequence[Block]

    @property
    def tiles(self) -> FloatArray:
        """How many there are."""
        heads = self.at.model.n_head
        return self.at.B * float(sum(heads // block.heads for block in self.blocks))

    @property
    def scores(self) -> FloatArray:
        """Keys that no query of a block sees are left out."""
        return self.at.B * float(self.at.model.n_head * sum(block.queries * block.keys for block in self.blocks))

    @property
    def copied(self) -> tuple[FloatArray, FloatArray]:
        """Elements copied each way, as products of 2 bytes take what is dense, and by how many operations: keys, values and
        distances of blocks that do not see every key, and all distances where their number is no multiple of a vector's."""
        at, partial = self.at, [block for block in self.blocks if block.keys < self.at.S]
        cut = self.blocks if at.S % VECTOR else partial
        distances = float(sum(distance_rows(block.keys) for block in cut) * at.W)
        keys = at.B * float(2 * sum(block.keys for block in partial) * at.W)
        tiles = at.B * float(sum(at.model.n_head // block.heads for block in partial))
        return keys + distances, tiles + float(len(cut))

    @property
    def tile_scores(self) -> float:
        """Of the largest tile, with dummies."""
        return float(max(block.heads * block.queries * distance_rows(block.keys) for block in self.blocks))

    def tile_gradient_bytes(self, section: Section) -> float:
        """Beside its scores, in backward: gradients of its distances and queries, what dropout left of its probabilities, and
        distances made dense."""
        rows = max(block.heads * (distance_rows(block.keys) + block.queries) for block in self.blocks)
        dense = distance_rows(self.at.S) * self.at.W if section.numbers.halved and self.copied[1].any() else 0.0
        dropped = self.tile_scores if self.at.model.dropatt > 0 else 0.0
        return (rows * self.at.model.d_head + dense + dropped) * section.numbers.compute

    def backward_bytes(self, section: Section) -> FloatArray:
        """Alive throughout the backward of all that is one function, whose inputs go when it ends: gradients of queries (and
        of their values), keys, values and distances, and what the forward pass kept of scores."""
        c, at = section.numbers.compute, self.at
        distances = float((at.S + VECTOR) * at.W) * section.numbers.wide
        return (2 * at.BSW + 2 * at.BTW + self.scores) * c + distances

    def product(self, *, positions: bool = False) -> Shape:
        """Queries by keys, or by distances and dummies, one product a sequence, head and block, of their mean size."""
        count, queries = len(self.blocks), self.at.T
        columns = [distance_rows(block.keys) if positions else block.keys for block in self.blocks]
        summed = sum(block.queries * each for block, each in zip(self.blocks, columns, strict=True))
        return {
            "count": self.at.B * float(self.at.model.n_head * count),
            "m": queries / count,
            "n": summed / queries,
            "k": float(self.at.model.d_head),
            "launches": self.tiles,
        }


def fast_layer(section: Section, at: Lengths) -> None:
    """Describe one layer."""
    tiled = _Tiled(at=at, blocks=blocks(at.T, at.S - at.T, at.model.n_head, narrow=section.numbers.halved))
    positions(section, at)
    inputs(section, at)
    _context(section, at)
    _projections(section, tiled)
    section.dispatch = TILE_DISPATCH
    _scores(section, tiled)
    _values(section, tiled)
    section.dispatch = 1.0
    attention_output(section, at)
    feed_forward(section, at)


def inputs(section: Section, at: Lengths, *, memory_kept: float = 0.0) -> None:
    """Segment and memory, normed (pre) each for itself; the segment in the precision of products.

    `memory_kept`: bytes of an element of the normed memory that are kept.
    """
    r, model = section.numbers.residual, at.model
    if model.norm == "pre":
        norm(section, "attention norm", rows=at.rows, width=model.d_model, kept=at.BTD * r)
        elements, statistics = memory_elements(at), 2 * at.B * at.M * section.numbers.wide
        memory = elements * r
        kept = statistics + (0.0 if r == section.numbers.wide else memory) + elements * memory_kept
        section.run("memory norm", PROJECTIONS, "norm", read=memory, written=memory, kept=kept, around=memory)
        section.back("memory norm", PROJECTIONS, "norm", read=2 * memory, written=memory)
    if not section.own_norm:
        section.narrow("segment cast", elements=at.BTD)


def _context(section: Section, at: Lengths) -> None:
    """Memory and segment in the precision of products, joined."""
    c, r = section.numbers.compute, section.numbers.residual
    section.run(
        "context",
        PROJECTIONS,
        "copy",
        launches=2 if section.numbers.narrows else 1,
        read=at.BSD * r,
        written=at.BSD * c,
        kept=at.BSD * c + (0.0 if section.numbers.narrows else at.BTD * r),
        around=0.0,
    )
    attention_residual(section, at)


def attention_residual(section: Section, at: Lengths) -> None:
    """The sum of two gradients of the layer's input, in the backward of what was described last."""
    gradient = at.BTD * section.numbers.residual
    section.back("attention residual", PROJECTIONS, read=2 * gradient, written=gradient)


def memory_elements(at: Lengths) -> FloatArray:
    return at.B * float(at.M * at.model.d_model)


def positions(section: Section, at: Lengths) -> None:
    """W R once for all sequences."""
    width = at.model.d_model
    section.narrow("position cast", elements=float(at.S * width), gradient=False)
    section.linear("positions", PROJECTIONS, rows=float(at.S), n=at.W, k=width, kept=0.0, input_gradient=False)
    section.held = section.held + float(at.S * at.W) * section.numbers.compute


def _projections(section: Section, tiled: _Tiled) -> None:
    """What dropout keeps of scores; q of the segment, k and v of memory and segment, by one weight, each head's put together; u
    and v added to the queries.

    Backward gives up nothing before its function ends: what the forward pass kept, gradients of segment and memory, and of the
    weight, which are widened last.
    """
    at, pre, wide = tiled.at, tiled.at.model.norm == "pre", section.numbers.wide
    c, d, width = section.numbers.compute, section.numbers.narrow, at.model.d_model
    padded, keys, queries = float((at.S + VECTOR) * at.W) * c, 2 * at.BSW * c, at.BTW * c
    memory = memory_elements(at) if pre else 0.0 * at.B
    weight, own = 3.0 * at.W * width, tiled.backward_bytes(section) + padded
    inside = own
    inputs = (at.BTD + memory) * (c + (section.numbers.residual if section.numbers.narrows else 0.0))
    beside = inside + queries + keys + weight * c + inputs + float(at.S * at.W) * c
    gradient = weight * wide
    if at.model.dropatt > 0 and section.training:
        section.mask("attention dropout", SCORES, elements=at.BHTS)
    if section.weight_cast("q k v weight narrowed", weight, weight, beside=beside, gradient=gradient):
        inside, gradient = inside + weight * c, 0.0
    _queries_keys_values(section, at, inside=inside, gradient=gradient)
    moved = queries + keys
    section.run("heads apart", SCORES, "copy", launches=2, read=moved, written=moved, around=keys, dtype=d)
    section.back("heads apart", SCORES, "copy", read=keys, written=keys, around=own + keys, dtype=d)
    section.run("distances by head", SCORES, "copy", launches=2, read=padded, written=padded, kept=padded, dtype=d)
    section.back("distances by head", SCORES, "copy", read=padded, written=padded, around=inside, dtype=d)
    biased, gradient = 2 * at.BTW * c, 2 * at.W * wide if at.model.untie_r else 0.0
    section.run("query biases", SCORES, launches=4, read=2 * biased, written=2 * biased, around=biased, dtype=d)
    around = tiled.backward_bytes(section)
    read, written = 2 * biased, 2 * biased + float((at.S + VECTOR) * at.W) * wide
    section.back("query biases", SCORES, launches=10, read=read, written=written, around=around, gradient=gradient, dtype=d)


def _queries_keys_values(section: Section, at: Lengths, *, inside: Figure, gradient: float) -> None:
    """q of the segment, k and v of memory and segment, by parts of one weight, whose gradient takes `gradient` bytes.

    `inside`: bytes that are alive until the function that gives all these gradients ends.
    """
    pre, c, width = at.model.norm == "pre", section.numbers.compute, at.model.d_model
    keys, queries, n = 2 * at.BSW * c, at.BTW * c, 2.0 * at.W
    memory = memory_elements(at) if pre else 0.0 * at.B
    section.product("queries", PROJECTIONS, m=at.rows, n=at.W, k=width, kept=queries)
    around = inside + keys + (at.BTD + memory) * c
    section.gradient("queries", PROJECTIONS, m=at.rows, n=at.W, k=width, around=around)
    section.gradient("queries", PROJECTIONS, m=at.rows, n=at.W, k=width, around=around, measured_as="weights")
    section.product("keys and values", PROJECTIONS, m=at.B * at.C, n=n, k=width, kept=keys)
    section.gradient(
        "keys and values", PROJECTIONS, m=at.B * at.C, n=n, k=width, around=inside, gradient=gradient, measured_as="weights"
    )
    each: Shape = {"m": float(at.T), "n": n, "k": width, "count": at.B, "launches": at.B}
    section.gradient("keys and values", PROJECTIONS, **each, around=inside + at.BTD * c)
    if pre:
        section.gradient("keys and values", PROJECTIONS, **each | {"m": float(at.M)}, around=inside + (at.BTD + memory) * c)


def _scores(section: Section, tiled: _Tiled) -> None:
    """Position scores, content scores added to their shifted view, masked; softmax. Backward keeps nothing but a tile."""
    c, d, at = section.numbers.compute, section.numbers.narrow, tiled.at
    scores, tile, tiles = tiled.scores * c, 2 * tiled.tile_scores * c, tiled.tiles
    keys, queries = float(at.S * at.W) * c, at.BTW * c
    gradients = tiled.backward_bytes(section) + 2 * queries
    around = gradients + tile + tiled.tile_gradient_bytes(section)
    section.held = section.held + 3 * at.BTW * c + tile
    for name in ("position", "content"):
        shape = tiled.product(positions=name == "position")
        section.product(f"{name} scores", SCORES, "bmm", **shape)
        for _ in range(2):
            section.gradient(f"{name} scores", SCORES, "bmm", around=around, **shape)
    section.back(
        "key gradients", SCORES, launches=2 * tiles, read=4 * at.BSW * c, written=2 * at.BSW * c, around=gradients, dtype=d
    )
    section.back("query gradients", SCORES, launches=5 * tiles, read=3 * queries, written=queries, around=gradients, dtype=d)
    section.back("distance gradients", SCORES, launches=tiles, read=2 * keys, written=keys, around=gradients, dtype=d)
    section.back(
        "relative shift", SCORES, "copy", launches=2 * tiles, read=scores, written=2 * scores, around=gradients, dtype=d
    )
    if section.numbers.halved:
        copied, launches = tiled.copied
        moved = copied * c
        section.run("operands made dense", SCORES, "copy", launches=launches, read=moved, written=moved, around=0.0, dtype=d)
        section.back(
            "operands made dense", SCORES, "copy", launches=launches, read=moved, written=moved, around=gradients, dtype=d
        )
    section.run("score mask", SCORES, launches=tiles, read=scores, written=scores, around=0.0, dtype=d)
    section.run("attention softmax", SCORES, "softmax", launches=tiles, read=scores, written=scores, kept=scores, dtype=d)
    read, around = 2 * scores, around - scores
    section.back("attention softmax", SCORES, "softmax", launches=tiles, read=read, written=scores, around=around, dtype=d)


def _values(section: Section, tiled: _Tiled) -> None:
    """Probabilities dropped; values weighted by them, and gathered from heads."""
    c, d, at = section.numbers.compute, section.numbers.narrow, tiled.at
    rate, mixed, tiles = at.model.dropatt, at.BTW * c, tiled.tiles
    if rate > 0 and section.training:
        read, written = masked(tiled.scores, c)
        launches = MASKED_BY * tiles
        section.run("attention dropout", SCORES, launches=launches, read=read, written=written, around=0.0, dtype=d)
        section.back(
            "attention dropout", SCORES, launches=2 * launches, read=2 * read, written=2 * written, around=mixed, dtype=d
        )
    shape = tiled.product()
    section.product("weighted values", VALUES, "bmm", **shape)
    for around in (2 * at.BSW * c, mixed):
        section.gradient("weighted values", VALUES, "bmm", around=around, **shape)
    section.run("head gather", VALUES, "copy", launches=tiles, read=mixed, written=mixed, kept=mixed, dtype=d)
