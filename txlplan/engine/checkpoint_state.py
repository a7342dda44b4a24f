"""`state.json`: what of a checkpoint is no tensor, and the digests of what is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from txlplan import files
from txlplan.choices import OptimizerName
from txlplan.config import from_plain, to_plain
from txlplan.config._schema import STRICT
from txlplan.errors import CheckpointError, ConfigError
from txlplan.model import ModelConfig

FILE_NAME = "state.json"
SCHEMA_VERSION = 1

# fmt: off
_ARCHITECTURE = (
    "n_layer", "d_model", "n_head", "d_head", "d_inner", "vocab_size", "d_embed", "cutoffs",
    "div_val", "tie_weights", "tie_projections", "norm", "activation", "untie_r", "attention", "head",
)
# fmt: on
"""What must be equal for weights to mean the same; segment, memory, clamp and dropout may differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointState:
    """Everything but tensors."""

    __pydantic_config__ = STRICT

    step: int
    """Optimizer steps done."""
    model: ModelConfig
    optimizer: OptimizerName | None
    """None: weights alone, without states of an optimizer."""
    world_size: int
    global_batch: int
    """Rows of recurrent memory; 0: none is held."""
    valid_length: int
    """Slots of the recurrent memory that hold real states."""
    loader: Mapping[str, int]
    """Position in the data, the same for every process."""
    scaler: Mapping[str, int | float]
    """Loss scale (fp16); empty under any other precision."""
    tensors: Mapping[str, Mapping[str, str]]
    """SHA-256 by file and tensor."""

    def has_streams_of(self, model: ModelConfig, global_batch: int) -> bool:
        """Whether recurrent memory and position belong to streams cut like these."""
        cut = (self.model.tgt_len, self.model.mem_len, self.global_batch)
        return cut == (model.tgt_len, model.mem_len, global_batch)


def write(directory: Path, state: CheckpointState) -> None:
    """Write state.json with its checksum."""
    plain = to_plain(state)
    document = {"schema_version": SCHEMA_VERSION, "sha256": _checksum(plain), "state": plain}
    files.write_text(directory / FILE_NAME, json.dumps(document, indent=1) + "\n")


def read(directory: Path) -> CheckpointState:
    """Read it back. Raises CheckpointError when it is missing, damaged or of another version."""
    path = directory / FILE_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version, checksum, plain = document["schema_version"], document["sha256"], document["state"]
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing: {directory} is not a checkpoint") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: damaged or cut short", hint="use an earlier checkpoint") from None
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{path}: schema_version {version!r} is not one that this txlplan reads ({SCHEMA_VERSION})")
    if checksum != _checksum(plain):
        raise CheckpointError(f"{path}: damaged: its content is not what was written", hint="use an earlier checkpoint")
    try:
        return from_plain(CheckpointState, plain, str(path))
    except ConfigError as error:
        raise CheckpointError(error.message) from None


def require_architecture(directory: Path, state: CheckpointState, model: ModelConfig) -> None:
    """Raise CheckpointError that names the first field in which the checkpoint's model is another one."""
    for name in _ARCHITECTURE:
        theirs, ours = getattr(state.model, name), getattr(model, name)
        if theirs != ours:
            raise CheckpointError(
                f"{directory}: is of another model: its {name} is {theirs!r}, {model.id}'s is {ours!r}",
                hint=f"it was written by the model {state.model.id!r}",
            )


def put_in_place(partial: Path, target: Path) -> None:
    """Rename a finished directory, flushed, to its place; from then on the checkpoint exists."""
    flush_directory(partial)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    flush_directory(target.parent)


def flush_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
