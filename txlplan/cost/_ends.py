"""Operations before and after the layers of the reference module: embedding, recurrent memory, adaptive softmax, loss.

Letters as in `_layer`; V words, E width of an embedding, N = B·T predicted tokens.
"""

from __future__ import annotations

# ruff: noqa: N806  (products of the legend's letters name sizes: BTD, BHTS)
import math
from collections.abc import Sequence
from itertools import pairwise

from txlplan.cost._layer import RESIDUAL, Lengths
from txlplan.cost._op_stream import Figure
from txlplan.cost._section import Section
from txlplan.model import ModelConfig
from txlplan.model._parameters import has_projections, table_shapes

EMBEDDING, MEMORY, SOFTMAX = "embedding", "recurrent memory", "softmax loss"
_EULER = 0.5772156649


def embedding(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Every table read for every token, projected, summed, scaled, dropped; distances and masks made once a segment."""
    f, rows = section.numbers.wide, at.B * at.T
    BTD, TS, SD = rows * model.d_model, float(at.T * at.S), float(at.S * model.d_model)
    shapes = table_shapes(model)
    section.run("hidden keys", EMBEDDING, launches=7, read=3 * 8 * TS, written=2 * 8 * TS, kept=TS, around=8 * TS)
    for cluster, (words, width) in enumerate(shapes):
        name, elements = f"table {cluster}", rows * width
        table_bytes = words * width * f
        section.run(name, EMBEDDING, "gather", read=elements * f, written=elements * f, kept=rows * 8)
        shared = model.tie_weights
        section.back(
            name,
            EMBEDDING,
            "gather",
            launches=2 if shared else 1,
            read=elements * f + (2 * table_bytes if shared else 0.0),
            written=table_bytes * (2 if shared else 1),
            around=table_bytes,
            gradient=0.0 if shared else table_bytes,
        )
        if len(shapes) > 1:
            section.run(f"{name} mask", EMBEDDING, launches=7, read=2 * elements * f, written=2 * elements * f, kept=rows)
            section.back(f"{name} mask", EMBEDDING, read=elements * f, written=elements * f)
        if has_projections(model):
            section.cast(f"{name} cast", elements=elements, kept=elements * section.numbers.compute)
            kept = 0.0 if section.numbers.cast else elements * f
            section.linear(f"{name} projection", EMBEDDING, rows=rows, n=model.d_model, k=width, kept=kept)
    if len(shapes) > 1:
        sums = len(shapes) - 1
        section.run("table sum", EMBEDDING, launches=sums, read=2 * sums * BTD * f, written=sums * BTD * f)
    section.run("embedding scale", EMBEDDING, read=BTD * f, written=BTD * f)
    section.back("embedding scale", EMBEDDING, read=BTD * f, written=BTD * f)
    section.dropout("embedding dropout", EMBEDDING, elements=BTD, size=f, rate=model.dropout)
    section.run(
        "sinusoids", EMBEDDING, launches=8, read=2 * SD * f, written=3 * SD * f, kept=0.0 if section.numbers.cast else SD * f
    )
    if model.dropout > 0 and section.training:
        section.run("sinusoid dropout", EMBEDDING, launches=4, read=3 * SD * f, written=3 * SD * f)


def remember(section: Section, model: ModelConfig, at: Lengths) -> None:
    """The last dropout, and the new memory: inputs of all layers stacked, then joined to what stays of the old one.

    Old and new are alive together until the loss is computed. The layers' inputs, held until now, are given back.
    """
    f, BTD = section.numbers.wide, at.B * at.T * model.d_model
    section.dropout("last dropout", RESIDUAL, elements=BTD, size=f, rate=model.dropout)
    inputs, memory = model.n_layer * BTD * f, model.n_layer * at.B * at.M * model.d_model * f
    section.run("inputs stacked", MEMORY, "copy", read=inputs, written=inputs)
    section.run("memory joined", MEMORY, "copy", read=memory, written=memory, around=memory + inputs)


def loss(section: Section, model: ModelConfig, at: Lengths, tail_shares: Sequence[float] | None = None) -> None:
    """Negative log-likelihood by the adaptive softmax; `tail_shares`: share of targets in each further cluster (None: Zipf)."""
    rows = at.B * at.T
    shares = zipf_shares(model) if tail_shares is None else tail_shares
    _cluster_loss(section, model, 0, rows)
    for cluster, share in enumerate(shares, start=1):
        mine, f = rows * share, section.numbers.wide
        section.run(
            f"cluster {cluster} rows",
            SOFTMAX,
            "gather",
            launches=9,
            read=mine * model.d_model * f + rows * 24,
            written=mine * model.d_model * f + rows * 8,
            kept=mine * 8,
        )
        section.back(
            f"cluster {cluster} rows",
            SOFTMAX,
            "gather",
            launches=3,
            read=mine * model.d_model * f + rows * model.d_model * f,
            written=2 * rows * model.d_model * f,
        )
        _cluster_loss(section, model, cluster, mine)


def log_probabilities(section: Section, model: ModelConfig, at: Lengths) -> None:
    """Log-probabilities of the next word over the whole vocabulary, one row a sequence."""
    f = section.numbers.wide
    for cluster in range(model.n_clusters):
        _logits(section, model, cluster, at.B)
        logits = at.B * _outputs(model, cluster) * f
        section.run(f"cluster {cluster} log-softmax", SOFTMAX, "loss", read=logits, written=logits)
    if model.n_clusters > 1:
        all_words = at.B * model.vocab_size * f
        section.run("vocabulary joined", SOFTMAX, "copy", launches=model.n_clusters, read=2 * all_words, written=2 * all_words)


def zipf_shares(model: ModelConfig) -> tuple[float, ...]:
    """Share of tokens in each further cluster when word frequency is as 1 / rank (Zipf): differences of harmonic numbers."""
    if model.n_clusters == 1:
        return ()
    bounds = [_harmonic(end) for end in (*model.cutoffs, model.vocab_size)]
    return tuple((high - low) / bounds[-1] for low, high in pairwise(bounds))


def _harmonic(number: int) -> float:
    return math.log(number) + _EULER + 1 / (2 * number)


def _outputs(model: ModelConfig, cluster: int) -> int:
    """Outputs of a cluster: its words, and for the head one more for each further cluster."""
    return model.cluster_sizes[cluster] + (model.n_clusters - 1 if cluster == 0 else 0)


def _cluster_loss(section: Section, model: ModelConfig, cluster: int, rows: Figure) -> None:
    c, f = section.numbers.compute, section.numbers.wide
    elements = rows * _outputs(model, cluster)
    _logits(section, model, cluster, rows)
    section.held = elements * c
    name = f"cluster {cluster}"
    if section.numbers.cast:
        section.run(f"{name} widening", SOFTMAX, "copy", read=elements * c, written=elements * f)
        section.back(f"{name} widening", SOFTMAX, "copy", read=elements * f, written=elements * c)
        section.held = elements * (c + f)
    section.run(f"{name} log-softmax", SOFTMAX, "loss", read=elements * f, written=elements * f, kept=elements * f)
    section.back(f"{name} log-softmax", SOFTMAX, "loss", read=2 * elements * f, written=elements * f)
    section.run(f"{name} likelihood", SOFTMAX, launches=2, read=rows * 12, written=rows * f, kept=rows * 8)
    section.back(f"{name} likelihood", SOFTMAX, read=rows * 12, written=elements * f, around=elements * f)
    section.held = 0.0


def _logits(section: Section, model: ModelConfig, cluster: int, rows: Figure) -> None:
    """Hidden states narrowed to the cluster's width, then against its words; autocast narrows every operand first."""
    c, f = section.numbers.compute, section.numbers.wide
    outputs, width = _outputs(model, cluster), model.embed_width
    if len(table_shapes(model)) > 1:
        width = model.cluster_widths[cluster]
    name = f"cluster {cluster}"
    if cluster == 0 and model.n_clusters > 1:
        weight = float(outputs * width)
        kept = 0.0 if section.numbers.cast else weight * f
        section.run(f"{name} words joined", SOFTMAX, "copy", launches=2, read=weight * f, written=weight * f, kept=kept)
    section.cast(f"{name} hidden cast", elements=rows * model.d_model, kept=rows * model.d_model * c)
    kept_hidden = 0.0 if section.numbers.cast else rows * model.d_model * f
    if has_projections(model):
        section.linear(f"{name} narrowing", SOFTMAX, rows=rows, n=width, k=model.d_model, kept=kept_hidden)
        kept_hidden = rows * width * c
    section.linear(f"{name} logits", SOFTMAX, rows=rows, n=outputs, k=width, kept=kept_hidden, bias=True)
