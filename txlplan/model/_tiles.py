"""How scores are cut into tiles, logits into chunks, and what few rows are: shared by the module that runs them and the cost
model that counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

_BLOCK_QUERIES = 128
"""Queries of a block, about: fewer skip more keys that no query of the block sees, but make products small."""
_MAX_BLOCKS = 16
_TILE_ELEMENTS = 1 << 19
"""Scores of a tile at most, where one head has fewer: a quarter of them fit a core's cache in fp32."""
_NARROW_BLOCK_QUERIES, _NARROW_TILE_ELEMENTS = 256, 1 << 21
"""The same where products are of 2 bytes: units for those take less time than calling them for small tiles, and the larger ones
need not stay in a core's cache (2 cores with AMX, 2026-11-26). Not measured on a CPU that widens for want of such units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Consecutive queries `[first, stop)` of a segment, which see `keys` keys at most: memory, and the segment up to `stop`."""

    first: int
    stop: int
    keys: int
    heads: int
    """Of one sequence that make a tile; a divisor of all heads."""

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.stop - self.first


def blocks(queries: int, mem_len: int, heads: int, *, narrow: bool) -> tuple[Block, ...]:
    """The blocks of a segment of `queries` tokens, the last ones first: that block sees every key. `narrow`: of 2 bytes."""
    many, elements = (_NARROW_BLOCK_QUERIES, _NARROW_TILE_ELEMENTS) if narrow else (_BLOCK_QUERIES, _TILE_ELEMENTS)
    count = min(max(1, round(queries / many)), _MAX_BLOCKS)
    size = -(-queries // count)
    bounds = [(first, min(first + size, queries)) for first in range(0, queries, size)]
    return tuple(
        Block(first=first, stop=stop, keys=mem_len + stop, heads=_heads(heads, (stop - first) * (mem_len + stop), elements))
        for first, stop in reversed(bounds)
    )


def _heads(heads: int, scores: int, elements: int) -> int:
    """The largest divisor of `heads` whose tile is small enough; 1 where a single head is larger."""
    fitting = (group for group in range(heads, 0, -1) if heads % group == 0 and group * scores <= elements)
    return next(fitting, 1)


LOGITS = 1 << 24
"""Logits that may exist at once: 64 MiB in fp32."""
GPU_LOGITS = 1 << 27
"""On a GPU, which dispatching the operations of more chunks would keep waiting: 512 MiB in fp32."""


def loss_chunks(rows: float, words: int, *, on_gpu: bool = False) -> int:
    """In how many chunks of words the loss of `rows` positions is computed; with more than one, logits are computed twice."""
    return math.ceil(words / max(1.0, (GPU_LOGITS if on_gpu else LOGITS) // max(rows, 1.0)))


CLUSTER_ROWS = 32
"""To whose multiples the rows of a further cluster are made up in products of 2 bytes on a CPU: oneDNN makes code for every
number of rows that it meets, which can take it longer than the product, and keeps it."""


KEPT_SLOTS = 64
"""To whose multiples the memory slots that a single token reads are made up, for the same reason."""


FEW_ROWS = 16
"""Products of so few rows are bound by reading the weight. With more they are bound by arithmetic, and a library's own product
is as fast as one that is cut for the threads."""
PACKED_ROWS, PACKED_ELEMENTS = 4, 1 << 19
"""Where a CPU has units for bf16, weights so large that meet so many rows, up to `FEW_ROWS`, are packed in fp32 too: with 4, 8,
13 and 16 rows one of 2560 by 640 took 234, 297, 311 and 325 us packed, 308, 415, 634 and 429 plain (2 cores of an Intel Xeon
with AMX, torch 2.13, 2026-11-26). On that machine told to do without AVX-512 both took as long."""


def packed_rows(elements: float, *, narrow: bool) -> range:
    """How many rows a weight of so many elements must meet to be packed, where a CPU has units for bf16. `narrow`: in bf16."""
    if narrow:
        return range(1, FEW_ROWS + 1)
    return range(PACKED_ROWS, FEW_ROWS + 1) if elements >= PACKED_ELEMENTS else range(0)


GPU_UPDATED_TOGETHER = 1 << 24
"""On a GPU, whose host dispatches each operation for as many as it takes: temporaries of 64 MiB each."""
UPDATED_TOGETHER = 1 << 18
"""Elements of parameters that LAMB updates by one operation, at most, unless one parameter has more: their temporaries stay in
cache. On 2 cores of an AMD EPYC (Zen 3) all at once took 1.4 to 2 times as long."""


VECTOR = 16
"""Elements at whose multiples rows begin for the fused kernels of a GPU, and for a CPU's units for 2 bytes, to read whole
vectors."""


def padded_keys(keys: int) -> int:
    """Of a row of a bias."""
    return -(-keys // VECTOR) * VECTOR


def distance_rows(keys: int) -> int:
    """Columns of position scores: at least one more than keys, and at most a vector."""
    return padded_keys(keys + 1)


def padded_width(d_head: int) -> int:
    """Of a head: the fused kernels of a GPU take multiples of 16 bytes; what is added is zero."""
    return -(-d_head // 8) * 8


SUMMED_ROWS = 8
"""Single tokens of so few rows are read by code of our own on a CPU: a core's registers hold the sums of no more."""
SCORED_QUERIES = 64
"""Queries of a block whose scores code of our own computes at a time: rows of so many keys fit a core's cache."""


def scored_blocks(queries: int, mem_len: int) -> tuple[tuple[int, int], ...]:
    """Queries of each block of a segment, and keys that it sees; the last block first, and only the first may be smaller."""
    stops = range(queries, 0, -SCORED_QUERIES)
    return tuple((min(stop, SCORED_QUERIES), mem_len + stop) for stop in stops)


def kept_row(keys: int) -> int:
    """Elements of a kept row of probabilities: an odd number of lines of a cache, so that rows do not meet in it."""
    return (-(-keys // VECTOR) | 1) * VECTOR


def _in_steps(rows: int) -> int:
    """To whose multiples products of bf16 in code of our own make up rows and columns."""
    return -(-rows // 32) * 32


def kept_scores(queries: int, mem_len: int, *, narrow: bool) -> int:
    """Elements that a head of one sequence keeps of its probabilities, with what each row is divided by. `narrow`: of 2 bytes,
    whose rows lie in pairs."""
    blocks = scored_blocks(queries, mem_len)
    if narrow:
        return sum(_in_steps(rows) * kept_row(_in_steps(keys) + 2) for rows, keys in blocks)
    return padded_keys(queries) + sum(rows * kept_row(keys) for rows, keys in blocks)
