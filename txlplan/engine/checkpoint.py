"""Checkpoints of a training run: `<run directory>/checkpoints/step-000000500/`, each whole or not there.

Tensors (weights, optimizer states, recurrent memory by row, random states by process) are safetensors files; the rest is
`state.json` with its own checksum and a digest of every tensor. A checkpoint is written to a hidden directory beside its
place, flushed, then renamed. Nothing is ever unpickled.

    tensor                            shape
    model/<parameter>                 as the module's
    optimizer/<parameter>/<state>     the optimizer's
    memory/row-<global row>           [n_layer, mem_len, d_model]
    random/<device>/<rank>            bytes
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from txlplan.engine import checkpoint_state, optimizers, tensor_files
from txlplan.engine.backend import Backend
from txlplan.engine.checkpoint_state import CheckpointState
from txlplan.engine.training import Trainer
from txlplan.engine.world import World
from txlplan.errors import CheckpointError
from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL

_MODEL, _OPTIMIZER = "model/", "optimizer/"
_KEPT = 2
"""Checkpoints kept while a run goes on; its final one comes on top."""


def save(run_directory: Path, trainer: Trainer, *, final: bool) -> Path:
    """Write the checkpoint of the trainer's step, by all processes together, and remove what retention does not keep."""
    target = _directory(run_directory) / f"step-{trainer.step:09d}"
    partial = _partial(target)
    world = trainer.backend.world
    if world.is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    trainer.backend.barrier()
    tensor_files.write(partial, _tensors(trainer), world)
    trainer.backend.barrier()
    if world.is_first:
        checkpoint_state.write(partial, _state(trainer, tensor_files.digests(partial)))
        checkpoint_state.put_in_place(partial, target)
        _retain(run_directory, _KEPT + 1 if final else _KEPT)
    trainer.backend.barrier()
    trainer.last_checkpoint = target
    return target


def newest(run_directory: Path) -> Path | None:
    """The last whole checkpoint of a run, or None. (A partial one has another name.)"""
    found = sorted(_directory(run_directory).glob("step-*"))
    return found[-1] if found else None


def locate(path: Path) -> Path:
    """A checkpoint directory: `path` itself, or the newest of the run directory `path`."""
    if (path / checkpoint_state.FILE_NAME).exists():
        return path
    found = newest(path)
    if found is None:
        what = "holds no checkpoint" if path.is_dir() else "no such directory"
        raise CheckpointError(f"{path}: {what}", hint="name a run directory that has checkpoints/, or one checkpoint in it")
    return found


def load_training(path: Path, trainer: Trainer) -> None:
    """Continue the run that wrote the checkpoint: bit-exactly with the same processes and batches.

    With other processes but the same global batch, only the random states (dropout) start anew; with another global batch
    or segment length the recurrent memory and the position in the data do too, with weights alone everything but those.
    """
    state = _verified(path, trainer.model.config)
    if state.optimizer not in (trainer.settings.optimizer, None):
        raise CheckpointError(
            f"{path}: holds the state of {state.optimizer}, the plan's optimizer is {trainer.settings.optimizer}"
        )
    specified = tensor_files.specifications(path)
    optimizer = _optimizer_tensors(specified, trainer)
    same_streams = state.has_streams_of(trainer.model.config, trainer.global_batch)
    same_processes = same_streams and state.world_size == trainer.backend.world.size
    memory = _memory_rows(trainer) if same_streams else {}
    random = {name: value for name, value in _random_states(trainer.backend).items() if same_processes and name in specified}
    prefixed = {_OPTIMIZER + name: tensor for name, tensor in optimizer.items()}
    _read(path, specified, _weights(trainer.model) | prefixed | memory | random)
    optimizers.set_state(trainer.optimizer, trainer.model, optimizer)
    _set_random_states(random)
    trainer.step, trainer.last_checkpoint = state.step, path
    if state.scaler and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(dict(state.scaler))
    if same_streams:
        trainer.loader.restore(dict(state.loader))
        trainer.valid_length.fill_(state.valid_length)


def save_weights(run_directory: Path, model: ModelConfig, weights: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint of weights alone (by parameter, fp32), at step 0: where a model begins that came from elsewhere."""
    target = _directory(run_directory) / f"step-{0:09d}"
    partial = _partial(target)
    partial.mkdir(parents=True)
    tensor_files.write(partial, {f"{_MODEL}{name}": tensor for name, tensor in weights.items()}, World())
    state = CheckpointState(
        step=0,
        model=model,
        optimizer=None,
        world_size=1,
        global_batch=0,
        valid_length=0,
        loader={},
        scaler={},
        tensors=tensor_files.digests(partial),
    )
    checkpoint_state.write(partial, state)
    checkpoint_state.put_in_place(partial, target)
    return target


def load_model(path: Path) -> TransformerXL:
    """The model of a checkpoint, in evaluation mode, with its weights."""
    model = TransformerXL(checkpoint_state.read(path).model).eval().requires_grad_(False)
    load_weights(path, model)
    return model


def load_weights(path: Path, model: TransformerXL) -> int:
    """Fill the model's parameters; the optimizer steps they have been trained for."""
    state = _verified(path, model.config)
    _read(path, tensor_files.specifications(path), _weights(model))
    return state.step


def remove_partial(run_directory: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for path in _directory(run_directory).glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _directory(run_directory: Path) -> Path:
    return run_directory / "checkpoints"


def _retain(run_directory: Path, kept: int) -> None:
    """Remove all but the newest; each stops being a checkpoint at once, before its files go."""
    for path in sorted(_directory(run_directory).glob("step-*"))[:-kept]:
        shutil.rmtree(path.rename(_partial(path)), ignore_errors=True)


def _partial(path: Path) -> Path:
    """What a checkpoint is called while it is not whole."""
    return path.with_name(f".{path.name}.partial")


def _verified(path: Path, model: ModelConfig) -> CheckpointState:
    """The state of an undamaged checkpoint of this model."""
    state = checkpoint_state.read(path)
    checkpoint_state.require_architecture(path, state, model)
    tensor_files.verify(path, {name: dict(tensors) for name, tensors in state.tensors.items()})
    return state


def _read(path: Path, specified: Mapping[str, tensor_files.Specification], into: Mapping[str, Tensor]) -> None:
    for name, tensor in into.items():
        if name not in specified:
            raise CheckpointError(f"{path}: has no tensor {name!r}")
        shape, dtype = specified[name]
        if (shape, dtype) != (tuple(tensor.shape), tensor.dtype):
            raise CheckpointError(f"{path}: tensor {name!r} is {dtype} {shape}, not {tensor.dtype} {tuple(tensor.shape)}")
    tensor_files.read(path, into)


def _state(trainer: Trainer, digests: tensor_files.Digests) -> CheckpointState:
    return CheckpointState(
        step=trainer.step,
        model=trainer.model.config,
        optimizer=trainer.settings.optimizer,
        world_size=trainer.backend.world.size,
        global_batch=trainer.global_batch,
        valid_length=int(trainer.valid_length),
        loader=trainer.loader.state(),
        scaler=trainer.scaler.state_dict() if trainer.scaler.is_enabled() else {},
        tensors=digests,
    )


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    optimizer = optimizers.named_state(trainer.optimizer, trainer.model)
    return (
        _weights(trainer.model)
        | {_OPTIMIZER + name: tensor for name, tensor in optimizer.items()}
        | _memory_rows(trainer)
        | _random_states(trainer.backend)
    )


def _weights(model: TransformerXL) -> dict[str, Tensor]:
    return {f"{_MODEL}{name}": parameter.detach() for name, parameter in model.named_parameters()}


def _optimizer_tensors(specified: Mapping[str, tensor_files.Specification], trainer: Trainer) -> dict[str, Tensor]:
    """Room for the optimizer states that the checkpoint holds, where the optimizer wants them."""
    names = [name for name in specified if name.startswith(_OPTIMIZER)]
    return {
        name.removeprefix(_OPTIMIZER): torch.empty(
            specified[name][0],
            dtype=specified[name][1],
            device=optimizers.state_device(trainer.optimizer, name, trainer.backend.device),
        )
        for name in names
    }


def _memory_rows(trainer: Trainer) -> dict[str, Tensor]:
    """Views of each row of recurrent memory of this process, by its number among all rows of the global batch."""
    rows = [memory_LBMD[:, row] for memory_LBMD in trainer.memory for row in range(memory_LBMD.shape[1])]
    first = trainer.backend.world.rank * len(rows)
    return {f"memory/row-{first + index:06d}": row_LMD for index, row_LMD in enumerate(rows)}


def _random_states(backend: Backend) -> dict[str, Tensor]:
    """States of the generators that dropout draws from on this process."""
    rank = f"rank-{backend.world.rank:05d}"
    states = {f"random/cpu/{rank}": torch.get_rng_state()}
    if backend.device.type == "cuda":
        states[f"random/cuda/{rank}"] = torch.cuda.get_rng_state(backend.device)
    return states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    for name, state in states.items():
        torch.cuda.set_rng_state(state) if name.startswith("random/cuda/") else torch.set_rng_state(state)
