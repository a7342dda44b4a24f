"""A foreign state dict as the weights of our module, with everything that is wrong with it named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from txlplan.errors import CheckpointError
from txlplan.interchange._layouts import Layout, derived_names, foreign_name, reordered, repeated_names
from txlplan.model import ModelConfig, parameter_shapes


def converted(source: Path, state: Mapping[str, Tensor], config: ModelConfig, layout: Layout | None) -> dict[str, Tensor]:
    """Our parameters by name, fp32, from a state dict in a layout (None: ours).

    Raises CheckpointError that names every tensor that is missing, left over, of another shape, not of finite numbers, or
    unequal to the one that it shares its values with.
    """
    names = {name: name if layout is None else foreign_name(name, layout) for name in parameter_shapes(config)}
    repeated = {} if layout is None else repeated_names(config, layout)
    known = {*names.values(), *repeated, *(() if layout is None else derived_names(layout))}
    problems = [
        *(f"has no tensor {theirs!r}" for theirs in names.values() if theirs not in state),
        *(f"tensor {theirs!r} has no place in the model" for theirs in state if theirs not in known),
        *_misshaped(state, config, names),
    ]
    if not problems:
        problems = [*_unusable(state, names), *_unequal(state, names, repeated)]
    if problems:
        raise CheckpointError(
            "\n".join(f"{source}: {problem}" for problem in problems),
            hint=f"the model it was compared with is {config.id!r}; another one is named with --model",
        )
    return {name: _own(name, state[theirs], layout) for name, theirs in names.items()}


def _own(name: str, tensor: Tensor, layout: Layout | None) -> Tensor:
    """A tensor of our own, which keeps no larger storage alive."""
    wide = tensor.detach().to(torch.float32, copy=True)
    return wide if layout is None else reordered(name, wide, layout).contiguous()


def _misshaped(state: Mapping[str, Tensor], config: ModelConfig, names: Mapping[str, str]) -> list[str]:
    return [
        f"tensor {names[name]!r} has shape {list(state[names[name]].shape)}, the model needs {list(shape)}"
        for name, shape in parameter_shapes(config).items()
        if names[name] in state and tuple(state[names[name]].shape) != shape
    ]


def _unusable(state: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    found = []
    for theirs in names.values():
        if not state[theirs].is_floating_point():
            found.append(f"tensor {theirs!r} holds {state[theirs].dtype}, not floating-point numbers")
        elif not bool(state[theirs].isfinite().all()):
            found.append(f"tensor {theirs!r} holds numbers that are not finite")
    return found


def _unequal(state: Mapping[str, Tensor], names: Mapping[str, str], repeated: Mapping[str, str]) -> list[str]:
    return [
        f"tensor {theirs!r} differs from {names[ours]!r}, which the model shares it with"
        for theirs, ours in repeated.items()
        if theirs in state and not torch.equal(state[theirs], state[names[ours]])
    ]
