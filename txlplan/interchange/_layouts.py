"""Names of the same parameters in the state dicts of other Transformer-XL programs.

    layout         program
    original       https://github.com/kimiyoung/transformer-xl, pytorch/mem_transformer.py
    nvidia         https://github.com/NVIDIA/DeepLearningExamples, PyTorch/LanguageModeling/Transformer-XL
    hugging-face   https://github.com/huggingface/transformers, models/deprecated/transfo_xl

All three fuse q, k and v in one matrix in this order, as ours does, and multiply each by [out, in] matrices. Rows of
`cluster_weight` and `cluster_bias` stand in the order of the clusters in Hugging Face's, and reversed in the other two,
which read the logit of cluster i at index -i.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from txlplan.model import ModelConfig, parameter_shapes
from txlplan.model._parameters import has_projections, table_shapes, untied_projections

Layout = Literal["original", "nvidia", "hugging-face"]

_LAYER = {
    "attention.content_bias": "dec_attn.r_w_bias",
    "attention.position_bias": "dec_attn.r_r_bias",
    "attention.qkv.weight": "dec_attn.qkv_net.weight",
    "attention.position.weight": "dec_attn.r_net.weight",
    "attention.output.weight": "dec_attn.o_net.weight",
    "attention.norm.weight": "dec_attn.layer_norm.weight",
    "attention.norm.bias": "dec_attn.layer_norm.bias",
    "feed_forward.inner.weight": "pos_ff.CoreNet.0.weight",
    "feed_forward.inner.bias": "pos_ff.CoreNet.0.bias",
    "feed_forward.outer.weight": "pos_ff.CoreNet.3.weight",
    "feed_forward.outer.bias": "pos_ff.CoreNet.3.bias",
    "feed_forward.norm.weight": "pos_ff.layer_norm.weight",
    "feed_forward.norm.bias": "pos_ff.layer_norm.bias",
}


def detect(names: Iterable[str]) -> Layout | None:
    """The layout of a state dict with these names, or None where it is of none of the three."""
    found = set(names)
    if "transformer.word_emb.emb_layers.0.weight" in found:
        return "hugging-face"
    if "word_emb.emb_layers.0.weight" not in found:
        return None
    return "nvidia" if "crit.out_layers_biases.0" in found else "original"


def foreign_name(name: str, layout: Layout) -> str:
    """Their name of the parameter that `parameter_shapes` calls `name`."""
    prefix = "transformer." if layout == "hugging-face" else ""
    first, _, rest = name.partition(".")
    if first == "layers":
        number, _, part = rest.partition(".")
        return f"{prefix}layers.{number}.{_LAYER[part]}"
    if first == "embedding":
        kind, _, number = rest.partition(".")
        return f"{prefix}word_emb.emb_layers.{number}.weight" if kind == "tables" else f"{prefix}word_emb.emb_projs.{number}"
    if first == "softmax":
        return f"crit.{_softmax(rest, layout)}"
    return prefix + {"content_bias": "r_w_bias", "position_bias": "r_r_bias"}[name]


def _softmax(name: str, layout: Layout) -> str:
    kind, _, number = name.partition(".")
    if kind == "projections":
        return f"out_projs.{number}"
    if kind in ("tables", "biases"):
        part = "weight" if kind == "tables" else "bias"
        return (
            f"out_layers_{'weights' if kind == 'tables' else kind}.{number}"
            if layout == "nvidia"
            else f"out_layers.{number}.{part}"
        )
    return kind


def repeated_names(config: ModelConfig, layout: Layout) -> dict[str, str]:
    """Their further names of parameters that are shared, to ours: a state dict may hold them, with equal values."""
    repeated: dict[str, str] = {}
    if config.tie_weights:
        for index in range(len(table_shapes(config))):
            repeated[foreign_name(f"softmax.tables.{index}", layout)] = f"embedding.tables.{index}"
    if has_projections(config):
        for cluster in set(range(config.n_clusters)) - set(untied_projections(config)):
            own = f"embedding.projections.{cluster if config.div_val > 1 else 0}"
            repeated[foreign_name(f"softmax.projections.{cluster}", layout)] = own
    if not config.untie_r:
        for name in ("content_bias", "position_bias"):
            repeated |= {foreign_name(f"layers.{i}.attention.{name}", layout): name for i in range(config.n_layer)}
    return repeated


def derived_names(layout: Layout) -> frozenset[str]:
    """Buffers of theirs that follow from the configuration: frequencies of the sinusoids."""
    return frozenset({"transformer.pos_emb.inv_freq" if layout == "hugging-face" else "pos_emb.inv_freq"})


def reordered(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    """The value of our parameter `name` from theirs, or theirs from ours: clusters in the other order where they differ."""
    turned = layout != "hugging-face" and name in ("softmax.cluster_weight", "softmax.cluster_bias")
    return tensor.flip(0) if turned else tensor


def foreign_state(config: ModelConfig, weights: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """A state dict in their layout of our weights by name: shared parameters under each of their names, and their buffer."""
    own = {foreign_name(name, layout): reordered(name, weights[name], layout) for name in parameter_shapes(config)}
    repeated = {theirs: weights[ours] for theirs, ours in repeated_names(config, layout).items()}
    (buffer,) = derived_names(layout)
    frequencies = 10_000.0 ** -(torch.arange(0, config.d_model, 2) / config.d_model)
    return own | repeated | {buffer: frequencies}
