"""What a model is imported from: a file of tensors, or a directory with a configuration. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from txlplan.errors import CheckpointError
from txlplan.interchange._foreign_config import from_hugging_face, from_nvidia
from txlplan.interchange._layouts import Layout, detect
from txlplan.model import ModelConfig, models

TENSORS = "model.safetensors"
CONFIG = "model.toml"
FOREIGN_CONFIG = "config.json"
_TORCH_TENSORS = "pytorch_model.bin"
_PARALLEL_PREFIX = "module."
"""What torch's DataParallel and DistributedDataParallel put before every name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A model as another program (or `txlplan model export`) left it."""

    path: Path
    state: Mapping[str, Tensor]
    layout: Layout | None
    """None: our own names."""
    config: ModelConfig


def read_source(path: Path, model: ModelConfig | None) -> Source:
    """Read a state dict and its configuration, which `model` replaces. Raises CheckpointError."""
    if path.is_dir():
        return _directory(path, model)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    content = _tensors_of(path)
    state, raw = (content["model_state"], content.get("model_config")) if "model_state" in content else (content, None)
    if model is None and isinstance(raw, Mapping):
        model = from_nvidia(path, raw, path.stem)
    if model is None:
        raise CheckpointError(
            f"{path}: holds tensors but no configuration",
            hint="name the model they are of: --model MODEL (`txlplan model list`, or a .toml file)",
        )
    return _source(path, state, model)


def _directory(path: Path, model: ModelConfig | None) -> Source:
    files = [path / name for name in (TENSORS, _TORCH_TENSORS) if (path / name).is_file()]
    if not files:
        raise CheckpointError(f"{path}: holds neither {TENSORS} nor {_TORCH_TENSORS}")
    if (path / CONFIG).is_file():
        config = model or models.get(str(path / CONFIG))
        return Source(path=path, state=_tensors_of(files[0]), layout=None, config=config)
    if model is None:
        model = from_hugging_face(path / FOREIGN_CONFIG, _json(path / FOREIGN_CONFIG), path.absolute().name)
    return _source(files[0], _tensors_of(files[0]), model)


def _source(path: Path, state: Any, config: ModelConfig) -> Source:
    """A state dict without the prefix of parallel wrappers, and its layout."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: no state dict: not every entry is a tensor")
    if not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path}: no state dict: not every name is text")
    plain = {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in state.items()}
    layout = detect(plain)
    if layout is None:
        raise CheckpointError(
            f"{path}: no state dict of a Transformer-XL: it has no word_emb.emb_layers.0.weight",
            hint="read are those of the original code, of NVIDIA's and of Hugging Face's transfo-xl",
        )
    return Source(path=path, state=plain, layout=layout, config=config)


def _tensors_of(path: Path) -> dict[str, Any]:
    """The content of a safetensors file, or of a file that torch wrote, as far as it is tensors and plain values."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None
    content = load_plain(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return dict(content)


def load_plain(path: Path) -> Any:
    """What torch saved, read by its loader for weights, which builds tensors and plain values and runs nothing."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: refused: it holds Python objects, or is no file of torch's; reading those would run code of its "
            f"author ({reason})",
            hint="where you trust it and have the code that wrote it: load it there and save what is plain, with "
            "`torch.save(model.state_dict(), 'weights.pt')` for a whole model, or "
            "`torch.save({k: checkpoint[k] for k in ('model_config', 'model_state')}, 'weights.pt')` for one of NVIDIA's",
        ) from None
    except Exception as error:  # (bytes that are no pickle can make its reader raise anything)
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read: damaged, cut short, or no file that torch saved ({what})",
            hint="docs/guides/exchange.md lists what is read",
        ) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing", hint="--model names a configuration to use instead") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return raw
