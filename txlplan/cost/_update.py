"""Operations of one update: gradient clipping and the optimizer, over all parameters at once."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from math import prod

from txlplan.choices import OptimizerName, Precision
from txlplan.cost._op_stream import Op
from txlplan.errors import InputError
from txlplan.model import ModelConfig, parameter_count, parameter_shapes
from txlplan.model._tiles import GPU_UPDATED_TOGETHER, UPDATED_TOGETHER
from txlplan.workload import Optimization

OPTIMIZER, UNSCALING = "optimizer", "gradient unscaling"
_PASSES_BYTES: dict[OptimizerName, float] = {"adam": 28.0, "adamw": 28.0, "adafactor": 60.0, "lamb": 100.0}
"""Bytes read and written per fp32 parameter. Fused Adam reads parameter, gradient and two states and writes all but the
gradient: 7 × 4. LAMB and Adafactor go over each tensor operation by operation."""
_LAUNCHES: dict[OptimizerName, tuple[int, int]] = {"adafactor": (22, 13), "lamb": (13, 13)}
"""Of a matrix and of a vector; adam and adamw are one operation over all."""
_STATE_PER_PARAMETER: dict[OptimizerName, float] = {"adam": 2.0, "adamw": 2.0, "lamb": 2.0}
_NORM_BYTES, _SCALING_BYTES, _WRITTEN_SCALED_BYTES = 4.0, 8.0, 4.0
"""Per parameter: read for the norm; read and written for the scaling, or only written where fused Adam scales as it reads."""


_TENSORS_AT_ONCE, _ELEMENTS_AT_ONCE = 24.0, 320 * 65536.0
"""What one kernel of a GPU goes over at most (torch's multi_tensor_apply: the lists and the blocks that its arguments hold).
Fused Adam took 14 kernels for 216 tensors of 186 million elements, and 3 for 85 of 5 million (torch 2.11, H200)."""


_STEP_CALLS = 25.0
"""Operations of a training step on single numbers and on words: the loss's mean, the learning rate, the factor that clips."""


def update(optimization: Optimization, model: ModelConfig, precision: Precision, *, on_gpu: bool = False) -> list[Op]:
    """Clipping where it is asked for (and unscaling under fp16), then the optimizer.

    `on_gpu`: a kernel goes over many tensors.
    """
    parameters, tensors = float(parameter_count(model)), float(len(parameter_shapes(model)))
    over_all = tensors / _TENSORS_AT_ONCE + parameters / _ELEMENTS_AT_ONCE if on_gpu else tensors
    clips = optimization.clip_norm is not None
    on_the_way = clips and optimization.optimizer not in _LAUNCHES and precision != "fp16"
    ops = [_over_parameters("bookkeeping", 0.0, _STEP_CALLS, 0.0)]
    if clips:
        ops.append(_clipping(parameters, over_all, apart=not on_the_way))
    if precision == "fp16":
        ops.append(_over_parameters(UNSCALING, 8.0 * parameters, 1.0, 0.0))
    passes = _PASSES_BYTES[optimization.optimizer] + _WRITTEN_SCALED_BYTES * on_the_way
    moved = passes * parameters
    if optimization.optimizer not in _LAUNCHES:
        return [*ops, _over_parameters(optimization.optimizer, moved, over_all if on_gpu else 1.0, 0.0)]
    of_matrix, of_vector = _LAUNCHES[optimization.optimizer]
    matrices = sum(len(shape) > 1 for shape in parameter_shapes(model).values())
    launches = matrices * of_matrix + (tensors - matrices) * of_vector
    if optimization.optimizer == "lamb" and on_gpu:
        launches = of_matrix * (over_all + parameters / GPU_UPDATED_TOGETHER)
    most = GPU_UPDATED_TOGETHER if on_gpu else UPDATED_TOGETHER
    temporary = 4.0 * (2 * _largest_bucket(model, most) if optimization.optimizer == "lamb" else _largest_neighbours(model))
    return [*ops, _over_parameters(optimization.optimizer, moved, launches, temporary)]


def _largest_bucket(model: ModelConfig, most: int) -> int:
    """Elements of the most parameters that LAMB updates together, at most `most` where they are several, as `engine.optimizers`
    fills its buckets: in order.

    It makes two temporary tensors of each.
    """
    largest = 0
    for sizes in _groups(model):
        filled = 0
        for size in sizes:
            filled = size if filled + size > most else filled + size
            largest = max(largest, filled)
    return largest


def _largest_neighbours(model: ModelConfig) -> int:
    """Elements of the largest two parameters that Adafactor updates one after the other: it makes a temporary tensor of each,
    and lets go of the last one when it has the next."""
    return max(before + size for sizes in _groups(model) for before, size in pairwise([0, *sizes]))


def _groups(model: ModelConfig) -> list[list[int]]:
    """Elements of each parameter that decays, and of each that does not, in the order of `engine.optimizers`."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for name, shape in parameter_shapes(model).items():
        sizes[len(shape) > 1 and not name.endswith("bias")].append(prod(shape))
    return list(sizes.values())


def accumulation(model: ModelConfig, wide: float) -> Op:
    """Gradients of a micro-batch, `wide` bytes an element, added to those that are there: two read and one written."""
    op = _over_parameters("gradients added", 3 * wide * parameter_count(model), float(len(parameter_shapes(model))), 0.0)
    return replace(op, section="accumulation", phase="accumulation", kind="elementwise")


_PUBLISHED_BYTES: dict[OptimizerName, float] = {"adam": 84.0, "adamw": 92.0, "lamb": 68.0}
"""Bytes read and written per parameter by optimizers that go over each tensor, in fp32, gradients set to zero included.

Adam of torch 1: moments scaled (2 × 8) and added to (2 × 12), root (8), epsilon (8), step (16), 12 for the bias
corrections; AdamW scales parameters too (8). LAMB as TorchScript: moments (2 × 12), their ratio with the decayed weight
(16), two norms (8), step (16)."""
_PUBLISHED_LAUNCHES: dict[OptimizerName, float] = {"adam": 10.0, "adamw": 11.0, "lamb": 14.0}
_O2_BYTES = 12.0
"""Per parameter under Apex O2: fp16 gradients unscaled into fp32 ones (6), fp32 masters copied to fp16 parameters (6)."""


def published_update(optimization: Optimization, model: ModelConfig, precision: Precision) -> list[Op]:
    """Clipping, Apex O2's copies under fp16, and an optimizer that goes over the tensors one by one."""
    name = optimization.optimizer
    if name not in _PUBLISHED_BYTES:
        raise InputError(f"the published implementation has no {name}", hint=f"it has {', '.join(_PUBLISHED_BYTES)}")
    parameters, tensors = float(parameter_count(model)), float(len(parameter_shapes(model)))
    largest = max(prod(shape) for shape in parameter_shapes(model).values()) * 4.0
    ops = [_clipping(parameters, tensors, apart=True)]
    if precision == "fp16":
        ops.append(_over_parameters("master copies", _O2_BYTES * parameters, 4.0, 0.0))
    launches = tensors * _PUBLISHED_LAUNCHES[name]
    ops.append(_over_parameters(name, _PUBLISHED_BYTES[name] * parameters, launches, 2 * largest))
    return ops


@lru_cache(maxsize=256)
def state_bytes(optimization: Optimization, model: ModelConfig) -> float:
    """fp32 optimizer states: two of each parameter's size, or for Adafactor one row and one column of each matrix."""
    factor = _STATE_PER_PARAMETER.get(optimization.optimizer)
    if factor is not None:
        return factor * parameter_count(model) * 4.0
    shapes = parameter_shapes(model).values()
    return 4.0 * sum(shape[0] + shape[1] if len(shape) == 2 else prod(shape) for shape in shapes)


def _clipping(parameters: float, launches: float, *, apart: bool) -> Op:
    """The norm of all gradients, and `apart` what scales them: as many operations."""
    moved = (_NORM_BYTES + _SCALING_BYTES * apart) * parameters
    return _over_parameters("gradient clipping", moved, (1 + apart) * launches, 0.0)


def _over_parameters(name: str, bytes_moved: float, launches: float, temporary_bytes: float) -> Op:
    return Op(
        name=name,
        group=OPTIMIZER,
        section="update",
        kind="optimizer",
        phase="update",
        dtype="fp32",
        bytes_moved=bytes_moved,
        transient_bytes=temporary_bytes,
        launches=launches,
    )
