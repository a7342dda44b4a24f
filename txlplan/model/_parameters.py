"""The parameters of a Transformer-XL, from its configuration alone.

Names and shapes are those of the state of `txlplan.nn.TransformerXL`, so that memory and checkpoints can be planned where
no tensor library is loaded. Letters: V words, E width of an embedding, D d_model, H heads, K width of a head, F width of
the feed-forward layer.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from txlplan.model._config import ModelConfig

Shape = tuple[int, ...]


def parameter_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Shape of every parameter by its name, in the order of the module's state. A shared parameter is named once."""
    shapes = {} if config.untie_r else _attention_bias_shapes(config, "")
    shapes |= embedding_shapes(config)
    for layer in range(config.n_layer):
        shapes |= layer_shapes(config, f"layers.{layer}.")
    return shapes | softmax_shapes(config)


@lru_cache(maxsize=256)
def parameter_count(config: ModelConfig) -> int:
    """Number of parameters, the embedding and the softmax included; shared ones count once."""
    return sum(prod(shape) for shape in parameter_shapes(config).values())


def embedding_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Tables [V, E] and projections [D, E] of the adaptive input (Baevski & Auli 2019, arXiv:1809.10853).

    With div_val = 1 all clusters share one table, and its projection exists only where E differs from D; with a larger
    div_val each cluster has its own table and projection (the first too, though its E may equal D), as in the original code.
    """
    tables: dict[str, Shape] = {f"embedding.tables.{i}": (size, width) for i, (size, width) in enumerate(table_shapes(config))}
    projections: dict[str, Shape] = {
        f"embedding.projections.{i}": (config.d_model, width)
        for i, (_, width) in enumerate(table_shapes(config))
        if has_projections(config)
    }
    return tables | projections


def table_shapes(config: ModelConfig) -> tuple[Shape, ...]:
    """Words and width of each embedding table: one a cluster, or a single one where all clusters are equally wide."""
    if config.div_val == 1:
        return ((config.vocab_size, config.embed_width),)
    return tuple(zip(config.cluster_sizes, config.cluster_widths, strict=True))


def has_projections(config: ModelConfig) -> bool:
    """Whether embeddings are projected to d_model (and hidden states to the embeddings' widths)."""
    return config.div_val != 1 or config.embed_width != config.d_model


def untied_projections(config: ModelConfig) -> tuple[int, ...]:
    """Clusters whose softmax has a projection of its own (`tie_projections` false, or empty)."""
    if not has_projections(config):
        return ()
    tied = config.tie_projections or (False,) * config.n_clusters
    return tuple(cluster for cluster in range(config.n_clusters) if not tied[cluster])


def layer_shapes(config: ModelConfig, prefix: str) -> dict[str, Shape]:
    """Parameters of one layer: attention without biases in its products, a feed-forward layer with, two norms."""
    d_model, d_inner, heads_width = config.d_model, config.d_inner, config.n_head * config.d_head
    attention = f"{prefix}attention."
    feed_forward = f"{prefix}feed_forward."
    return {
        **(_attention_bias_shapes(config, attention) if config.untie_r else {}),
        f"{attention}qkv.weight": (3 * heads_width, d_model),
        f"{attention}position.weight": (heads_width, d_model),
        f"{attention}output.weight": (d_model, heads_width),
        f"{attention}norm.weight": (d_model,),
        f"{attention}norm.bias": (d_model,),
        f"{feed_forward}inner.weight": (d_inner, d_model),
        f"{feed_forward}inner.bias": (d_inner,),
        f"{feed_forward}outer.weight": (d_model, d_inner),
        f"{feed_forward}outer.bias": (d_model,),
        f"{feed_forward}norm.weight": (d_model,),
        f"{feed_forward}norm.bias": (d_model,),
    }


def _attention_bias_shapes(config: ModelConfig, prefix: str) -> dict[str, Shape]:
    """u and v of the paper (r_w_bias and r_r_bias of the original code)."""
    return {f"{prefix}{name}": (config.n_head, config.d_head) for name in ("content_bias", "position_bias")}


def softmax_shapes(config: ModelConfig) -> dict[str, Shape]:
    """A bias per word, a vector and a bias per further cluster, and what is not shared with the input."""
    shapes: dict[str, Shape] = {}
    if config.n_clusters > 1:
        further = config.n_clusters - 1
        shapes |= {"softmax.cluster_weight": (further, config.embed_width), "softmax.cluster_bias": (further,)}
    shapes |= {f"softmax.biases.{i}": (size,) for i, (size, _) in enumerate(table_shapes(config))}
    if not config.tie_weights:
        shapes |= {f"softmax.tables.{i}": shape for i, shape in enumerate(table_shapes(config))}
    for cluster in untied_projections(config):
        shapes[f"softmax.projections.{cluster}"] = (config.d_model, config.cluster_widths[cluster])
    return shapes


def parameter_groups(config: ModelConfig) -> dict[str, int]:
    """Number of parameters by group: embedding, attention (all layers), feed-forward (all layers), softmax."""
    groups = dict.fromkeys(("embedding", "attention", "feed-forward", "softmax"), 0)
    for name, shape in parameter_shapes(config).items():
        groups[_group(name)] += prod(shape)
    return groups


def _group(name: str) -> str:
    first = name.split(".")[0]
    if first in ("embedding", "softmax"):
        return first
    return "feed-forward" if ".feed_forward." in name else "attention"
