"""Operations before and after the layers of the reference module: embedding, recurrent memory, adaptive softmax, loss.

Sizes are in elements, times `c` or `f` bytes, as in `_layer`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from txlplan.cost._layer import RESIDUAL, Lengths
from txlplan.cost._numbers import Numbers
from txlplan.cost._op_stream import Figure
from txlplan.cost._section import Section
from txlplan.model import ModelConfig
from txlplan.model._parameters import has_projections, table_shapes, untied_projections
from txlplan.model._tiles import CLUSTER_ROWS, loss_chunks

EMBEDDING, MEMORY, SOFTMAX = "embedding", "recurrent memory", "softmax loss"
_EULER = 0.5772156649
_INDEX_BYTES, _WORD_BYTES = 8.0, 4.0


def embedding(section: Section, at: Lengths) -> None:
    """Every table read for every token, projected, summed, scaled, dropped; distances and masks made once a segment."""
    r, model = section.numbers.residual, at.model
    mask = float(at.T * at.S)
    index = _INDEX_BYTES * mask
    section.run("hidden keys", EMBEDDING, launches=7, read=3 * index, written=2 * index, kept=mask, around=index)
    embedded_words(section, at)
    section.dropout("embedding dropout", EMBEDDING, elements=at.BTD, size=r, rate=model.dropout)
    distances = at.S * model.d_model * r
    kept = 0.0 if section.numbers.narrows else distances
    section.run("sinusoids", EMBEDDING, launches=8, read=2 * distances, written=3 * distances, kept=kept)
    if model.dropout > 0 and section.training:
        section.dropout_of_constant("sinusoid dropout", EMBEDDING, elements=distances / r, size=r)


def embedded_words(section: Section, at: Lengths) -> None:
    """Every table read for every token, projected, summed and scaled."""
    model, hidden = at.model, at.BTD * section.numbers.residual
    tables = len(table_shapes(model))
    for cluster in range(tables):
        _table(section, at, cluster)
    if tables > 1:
        sums = tables - 1
        section.run("table sum", EMBEDDING, launches=sums, read=2 * sums * hidden, written=sums * hidden)
    section.run("embedding scale", EMBEDDING, read=hidden, written=hidden)
    section.back("embedding scale", EMBEDDING, read=hidden, written=hidden)


def _table(section: Section, at: Lengths, cluster: int) -> None:
    """One table: rows gathered, those of other clusters' words zeroed, projected to d_model."""
    f, model = section.numbers.wide, at.model
    words, width = table_shapes(model)[cluster]
    name, elements, table = f"table {cluster}", at.rows * width, words * width * f
    several = len(table_shapes(model)) > 1
    rows = elements * f
    section.run(name, EMBEDDING, "gather", read=rows, written=rows, kept=at.rows * _INDEX_BYTES)
    shared = model.tie_weights
    if shared:
        section.back(name, EMBEDDING, "gather", read=rows, written=rows + table, around=rows + table)
        section.back(f"{name} shared", EMBEDDING, read=2 * table, written=table, around=table, gradient=table, taken=table)
    else:
        section.back(name, EMBEDDING, "gather", read=rows, written=rows + table, around=rows, gradient=table)
    if several:
        section.run(f"{name} words", EMBEDDING, launches=7, read=2 * rows, written=2 * rows, kept=at.rows)
        section.back(f"{name} words", EMBEDDING, read=rows, written=rows)
    if has_projections(model):
        section.cast(f"{name} cast", elements=elements, kept=elements * section.numbers.compute)
        kept = 0.0 if section.numbers.cast else rows
        section.linear(f"{name} projection", EMBEDDING, rows=at.rows, n=model.d_model, k=width, kept=kept)
        if _shares_projection(model, cluster):
            sharing = 1 if len(table_shapes(model)) > 1 else sum(model.tie_projections)
            size = width * model.d_model * section.shared_bytes
            read = (1 + sharing) * size
            section.back(f"{name} projection shared", EMBEDDING, read=read, written=size, around=size, taken=sharing * size)


def remember(section: Section, at: Lengths, *, joins: bool) -> None:
    """The last dropout, and the new memory: inputs of all layers stacked and, if `joins`, joined to what stays of the old one.

    Old and new are alive together until the loss is computed. The layers' inputs, held until now, are given back.
    """
    f, r, model = section.numbers.wide, section.numbers.residual, at.model
    section.dropout("last dropout", RESIDUAL, elements=at.BTD, size=r, rate=model.dropout)
    if section.training and section.own_loss and section.numbers.narrows:
        section.base = section.held = at.BTD * r  # until the loss is there its caller holds what no product keeps
    a_slot = model.n_layer * at.B * model.d_model
    memory, inputs = a_slot * at.M * f, a_slot * (at.T if joins else at.M) * r
    apart = joins or r != f  # what is joined, or widened, is stacked before
    if apart:
        section.run("inputs stacked", MEMORY, "copy", read=inputs, written=inputs)
    read = memory if joins else inputs
    section.run("new memory", MEMORY, "copy", read=read, written=memory, around=memory + apart * inputs)


def loss(section: Section, at: Lengths, tail_shares: Sequence[float], *, made_up: RowsMadeUp) -> None:
    """Negative log-likelihood by the adaptive softmax; `tail_shares`: share of targets in each further cluster, `made_up`:
    whether their rows are."""
    f, c, model = section.numbers.wide, section.numbers.compute, at.model
    hidden = at.BTD * section.numbers.residual
    several = section.own_loss and model.n_clusters > 1
    if not section.training:
        section.base = section.held = at.BTD * (f + (c if section.numbers.cast else 0.0))
    if several:
        section.run("hidden states", SOFTMAX, "copy", launches=0.0, read=0.0, written=0.0)
        section.back("hidden states", SOFTMAX, "copy", launches=0.0, read=0.0, written=0.0, taken=hidden)
    if section.own_loss and _one_table(model):
        _split_table(section, model)
    _cluster_loss(section, model, 0, at.rows, _pieces(section, model, 0, at.rows))
    for cluster, share in enumerate(tail_shares, start=1):
        mine = _made_up(at.rows * share, made_up)
        chosen, index = mine * model.d_model * f, at.rows * _INDEX_BYTES
        name = f"cluster {cluster} rows"
        read, written, added = chosen + 3 * index, chosen + index, 0 if made_up == "no" else 1
        kept = (mine + at.rows * share * added) * _INDEX_BYTES
        section.run(name, SOFTMAX, "gather", launches=9 + 2 * added, read=read, written=written, kept=kept)
        back = at.BTD * f
        left = hidden if several and cluster == model.n_clusters - 1 else 0.0
        section.back(name, SOFTMAX, "gather", launches=3 + added, read=chosen + back, written=2 * back, left=left)
        _cluster_loss(section, model, cluster, mine, _pieces(section, model, cluster, np.maximum(at.rows, mine)))


def log_probabilities(section: Section, at: Lengths, *, join: bool = True) -> None:
    """Log-probabilities of the next word over the whole vocabulary, one row a sequence; and the word drawn by them.

    `join`: the head's words are put together each time, not once before.
    """
    f, model = section.numbers.wide, at.model
    for cluster in range(model.n_clusters):
        _logits(section, model, cluster, at.B, join=join)
        logits = at.B * outputs(model, cluster) * f
        narrow = logits * section.numbers.compute / f
        apart = section.numbers.cast and not widens_logits(section.numbers, on_gpu=section.gpu_loss)
        if apart:
            section.run(
                f"cluster {cluster} widening", SOFTMAX, "copy", read=narrow, written=logits, dtype=section.numbers.narrow
            )
        section.run(f"cluster {cluster} log-softmax", SOFTMAX, "loss", read=logits if apart else narrow, written=logits)
    if model.n_clusters > 1:
        moved = 2 * at.B * model.vocab_size * f
        section.run(JOINED, SOFTMAX, "copy", launches=model.n_clusters, read=moved, written=moved, around=moved)
    words = at.B * model.vocab_size * _WORD_BYTES
    temperature, sampling = DRAWING
    section.run(temperature, SOFTMAX, "softmax", launches=2, read=2 * words, written=2 * words)
    section.run(sampling, SOFTMAX, "sampling", launches=6, read=words, written=2 * words)


def widens_logits(numbers: Numbers, *, on_gpu: bool) -> bool:
    """Whether log-softmax widens logits as it reads them: a GPU's those of fp16, but not of bf16 (ATen's SoftMax.cpp:
    `half_to_float`)."""
    return on_gpu and numbers.dtype == "fp16"


JOINED = "vocabulary joined"
"""Log-probabilities of all clusters side by side."""
DRAWING = ("temperature", "sampling")
"""Operations of drawing words by their probabilities."""


def zipf_shares(model: ModelConfig) -> tuple[float, ...]:
    """Share of tokens in each further cluster when word frequency is as 1 / rank (Zipf): differences of harmonic numbers."""
    if model.n_clusters == 1:
        return ()
    bounds = [_harmonic(end) for end in (*model.cutoffs, model.vocab_size)]
    return tuple((high - low) / bounds[-1] for low, high in pairwise(bounds))


def _harmonic(number: int) -> float:
    return math.log(number) + _EULER + 1 / (2 * number)


def outputs(model: ModelConfig, cluster: int) -> int:
    """Outputs of a cluster: its words, and for the head one more for each further cluster."""
    return model.cluster_sizes[cluster] + (model.n_clusters - 1 if cluster == 0 else 0)


def _cluster_loss(section: Section, model: ModelConfig, cluster: int, rows: Figure, pieces: Figure = 1.0) -> None:
    """Logits, then cross-entropy in fp32: log-softmax keeps its output, the likelihood picks from it.

    In several `pieces` (of words) nothing but a sum a row is kept, and backward begins with the logits of a piece; the
    gradients of hidden states and words are there meanwhile.
    """
    c, f, d = section.numbers.compute, section.numbers.wide, section.numbers.narrow
    name, elements = f"cluster {cluster}", rows * outputs(model, cluster)
    logits, wide, again = elements * c, elements * f, np.greater(pieces, 1) * 1.0
    around, n, k = wide / pieces, float(outputs(model, cluster)), _width(model, cluster)
    meanwhile = again * (n * k * c + rows * k * f)
    _logits(section, model, cluster, rows, pieces)
    if cluster == 0 and model.n_clusters > 1 and (section.numbers.cast or not section.training):
        section.base = section.base + outputs(model, 0) * _width(model, 0) * (f if section.training else c)
    section.held = section.base + logits / pieces
    if section.numbers.cast:
        section.run(f"{name} widening", SOFTMAX, "copy", read=logits, written=wide, around=around, dtype=d)
        section.back(f"{name} widening", SOFTMAX, "copy", read=wide, written=logits, around=around + meanwhile, dtype=d)
        section.held = section.base + (logits + wide) / pieces
    kept = wide * (1 - again) + rows * f * again
    # (in pieces: maximum, difference, exponential and sum one after another)
    read, written = wide * (1 + 3 * again), wide * (1 + again)
    calls = pieces * (1 + _CHUNK_CALLS * again)
    section.run(f"{name} log-softmax", SOFTMAX, "loss", launches=calls, read=read, written=written, kept=kept, around=0.0)
    if not section.training:
        section.held = section.held + around * (1 - again)
    beside = around + (logits / pieces if section.numbers.cast else 0.0) + meanwhile
    section.gradient(
        f"{name} logits again",
        SOFTMAX,
        m=rows,
        n=n,
        k=k,
        count=again,
        around=beside,
        launches=again * pieces,
        measured_as="forward",
    )
    alive = 2 * around * (1 - again) + beside * again
    section.back(f"{name} log-softmax", SOFTMAX, "loss", launches=calls, read=2 * wide, written=wide, around=alive)
    section.run(f"{name} likelihood", SOFTMAX, "loss", read=rows * 12, written=rows * f, kept=rows * _INDEX_BYTES)
    alive = around + meanwhile
    section.back(f"{name} likelihood", SOFTMAX, "loss", read=rows * 12, written=wide * (1 - again), around=alive)
    section.held = section.base


_CHUNK_CALLS = 15
"""Operations of one chunk of words each way, beside its products and the one that its traffic is counted for: sums, maxima, and
which targets are among its words."""


RowsMadeUp = Literal["no", "counted", "expected"]
"""Whether rows of a further cluster are made up to a multiple: as many as were counted, or as are expected in the mean. (Where
hardly any are expected it is up to half a multiple high: none are made up to none.)"""


def _made_up(rows: Figure, how: RowsMadeUp) -> Figure:
    """Rows of a further cluster that are computed."""
    if how == "expected":
        return rows + (CLUSTER_ROWS - 1) / 2
    return np.ceil(np.round(rows, 6) / CLUSTER_ROWS) * CLUSTER_ROWS if how == "counted" else rows


def _pieces(section: Section, model: ModelConfig, cluster: int, rows: Figure) -> Figure:
    """In how many pieces the loss over a cluster is computed, given the most rows that it can have, [candidates]."""
    if not section.own_loss:
        return 1.0
    words = outputs(model, cluster)
    return np.array([float(loss_chunks(each, words, on_gpu=section.gpu_loss)) for each in np.atleast_1d(rows)])


def _width(model: ModelConfig, cluster: int) -> float:
    """Of the vectors of a cluster's words."""
    tables = table_shapes(model)
    return float(tables[cluster if len(tables) > 1 else 0][1])


def _logits(
    section: Section, model: ModelConfig, cluster: int, rows: Figure, pieces: Figure = 1.0, *, join: bool = True
) -> None:
    """Hidden states narrowed to the cluster's width, then against its words; autocast narrows every operand first."""
    c, f = section.numbers.compute, section.numbers.wide
    n, width = outputs(model, cluster), _width(model, cluster)
    name, hidden = f"cluster {cluster}", rows * model.d_model
    if join and cluster == 0 and model.n_clusters > 1:
        words = n * width * f
        kept = 0.0 if section.numbers.cast else words
        section.run(f"{name} words joined", SOFTMAX, "copy", launches=2, read=words, written=words, kept=kept)
    section.narrow(f"{name} hidden cast", elements=hidden)
    kept_hidden = 0.0 if section.numbers.narrows else hidden * section.numbers.residual
    if has_projections(model):
        shared = _shares_projection(model, cluster)
        waiting = width * model.d_model * section.shared_bytes if shared else 0.0
        section.linear(
            f"{name} narrowing",
            SOFTMAX,
            rows=rows,
            n=width,
            k=model.d_model,
            kept=kept_hidden,
            waiting=waiting,
            cast_before=shared,
        )
        kept_hidden = rows * width * c
    mine = model.cluster_sizes[cluster] * width * f
    waiting = mine if model.tie_weights or _one_table(model) else 0.0
    section.linear(
        f"{name} logits", SOFTMAX, rows=rows, n=n, k=width, kept=kept_hidden, bias=True, pieces=pieces, waiting=waiting
    )
    if not section.own_loss and _one_table(model):
        _sliced_table(section, model, cluster, n * width * f)


def _shares_projection(model: ModelConfig, cluster: int) -> bool:
    """Whether a cluster's hidden states are narrowed by the weights that widen its embeddings."""
    return has_projections(model) and cluster not in untied_projections(model)


def _one_table(model: ModelConfig) -> bool:
    """Whether several clusters share one table, whose gradient is put together of theirs."""
    return model.n_clusters > 1 and len(table_shapes(model)) == 1


def _split_table(section: Section, model: ModelConfig) -> None:
    """Clusters that are parts of one table: their gradients are put together once."""
    words, width = table_shapes(model)[0]
    table = words * width * section.numbers.wide
    section.run("words split", SOFTMAX, "copy", read=0.0, written=0.0)
    own = 0.0 if model.tie_weights else table
    left = table - own
    section.back("words split", SOFTMAX, "copy", read=table, written=table, around=0.0, gradient=own, left=left, taken=table)


def _sliced_table(section: Section, model: ModelConfig, cluster: int, slice_bytes: float) -> None:
    """Clusters that are slices of one table: each gradient is laid into zeros of the whole table, then all are added."""
    words, width = table_shapes(model)[0]
    table = words * width * section.numbers.wide
    name, sums = f"cluster {cluster} slice", 0 if cluster == model.n_clusters - 1 else 1
    read, written = slice_bytes + 2 * sums * table, slice_bytes + (1 + sums) * table
    own = table if cluster == 0 and not model.tie_weights else 0.0
    section.back(
        name,
        SOFTMAX,
        "copy",
        launches=2 + 2 * sums,
        read=read,
        written=written,
        around=2 * sums * table - own,
        gradient=own,
        left=table * (1 - sums),
        taken=model.cluster_sizes[cluster] * width * section.numbers.wide + own,
    )
