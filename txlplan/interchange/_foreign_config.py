"""Configurations of other programs: `config.json` of Hugging Face, `model_config` in NVIDIA's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from txlplan.config import from_plain
from txlplan.errors import CheckpointError, ConfigError
from txlplan.model import ModelConfig

_SHARED = ("n_layer", "d_model", "n_head", "d_head", "d_inner", "d_embed", "div_val", "mem_len")
_TGT_LEN = 128
"""Where a configuration does not say: `tgt_len` of Hugging Face's transfo-xl-wt103, and its default while it had one."""
_EPSILON = 1e-5
"""Of every layer norm of ours, and of the original code."""


def from_hugging_face(path: Path, raw: Mapping[str, Any], model_id: str) -> ModelConfig:
    """The model of a `config.json`. Raises CheckpointError for a key that is missing, or for what ours cannot be."""
    if raw.get("model_type") != "transfo-xl":
        raise CheckpointError(f"{path}: model_type is {raw.get('model_type')!r}, not 'transfo-xl'")
    _require(path, raw, {"attn_type": 0, "layer_norm_epsilon": _EPSILON})
    shares = raw.get("proj_share_all_but_first", True)
    ties = raw.get("tie_projs") or [False, *([shares] * len(_cutoffs(path, raw)))]
    fields = {
        "vocab_size": _key(path, raw, "vocab_size"),
        "untie_r": _key(path, raw, "untie_r"),
        "tie_weights": raw.get("tie_word_embeddings", True),
    }
    return _model(path, raw, model_id, ties, fields)


def from_nvidia(path: Path, raw: Mapping[str, Any], model_id: str) -> ModelConfig:
    """The model of a `model_config`; its biases are shared by all layers. Raises CheckpointError as above."""
    _require(path, raw, {"attn_type": 0})
    ties = raw.get("tie_projs") or [False] * (len(_cutoffs(path, raw)) + 1)
    fields = {"vocab_size": _key(path, raw, "n_token"), "untie_r": False, "tie_weights": _key(path, raw, "tie_weight")}
    return _model(path, raw, model_id, ties, fields)


def to_hugging_face(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model. Raises CheckpointError for what Hugging Face's module cannot be."""
    if config.activation != "relu":
        raise CheckpointError(f"{config.id}: activation = {config.activation!r}: Hugging Face's Transformer-XL has relu only")
    ties = list(config.tie_projections or (False,) * config.n_clusters)
    return {
        "architectures": ["TransfoXLLMHeadModel"],
        "model_type": "transfo-xl",
        "vocab_size": config.vocab_size,
        **{name: getattr(config, name) for name in _SHARED if name != "d_embed"},
        "d_embed": config.embed_width,
        "cutoffs": list(config.cutoffs),
        "clamp_len": config.clamp_len or -1,
        "same_length": config.same_length,
        "pre_lnorm": config.norm == "pre",
        "untie_r": config.untie_r,
        "tie_word_embeddings": config.tie_weights,
        "proj_share_all_but_first": ties == [False, *([True] * (len(ties) - 1))],
        "tie_projs": ties,
        "tgt_len": config.tgt_len,
        "dropout": config.dropout,
        "dropatt": config.dropatt,
        "attn_type": 0,
        "layer_norm_epsilon": _EPSILON,
        "init_std": config.init_std,
    }


def _model(path: Path, raw: Mapping[str, Any], model_id: str, ties: Any, fields: dict[str, Any]) -> ModelConfig:
    clamp_len = _key(path, raw, "clamp_len")
    values = {
        "id": model_id,
        **{name: _key(path, raw, name) for name in _SHARED},
        "cutoffs": _cutoffs(path, raw),
        "tie_projections": ties,
        "tgt_len": raw.get("tgt_len") or _TGT_LEN,
        "clamp_len": None if isinstance(clamp_len, int | float) and clamp_len <= 0 else clamp_len,
        "same_length": _key(path, raw, "same_length"),
        "norm": "pre" if raw.get("pre_lnorm", False) else "post",
        "dropout": raw.get("dropout", 0.0),
        "dropatt": raw.get("dropatt", 0.0),
        **fields,
    }
    try:
        return from_plain(ModelConfig, values, str(path))
    except ConfigError as error:
        raise CheckpointError(f"no configuration of a Transformer-XL: {error.message}") from None


def _require(path: Path, raw: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"{path}: {key} = {raw[key]!r}: only {value!r} is read")


def _key(path: Path, raw: Mapping[str, Any], name: str) -> Any:
    if raw.get(name) is None:
        raise CheckpointError(f"{path}: has no {name!r}", hint="--model names a configuration to use instead")
    return raw[name]


def _cutoffs(path: Path, raw: Mapping[str, Any]) -> tuple[int, ...]:
    found = _key(path, raw, "cutoffs")
    if not isinstance(found, list | tuple) or not all(type(end) is int for end in found):
        raise CheckpointError(f"{path}: cutoffs = {found!r}: not a list of whole numbers")
    return tuple(found)
