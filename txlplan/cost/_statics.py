"""Memory that stays for the whole step, beside what the walk over the op stream accounts for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from txlplan.cost._build import Settings
from txlplan.cost._ends import outputs
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._ring import kept_bytes, packed_bytes, prompt_bytes
from txlplan.cost._update import state_bytes
from txlplan.hardware import StackProfile
from txlplan.model import ModelConfig, parameter_count, parameter_shapes
from txlplan.model._tiles import SUMMED_ROWS

_CONTEXT_BYTES = {"gpu": 600 * 2**20, "tpu": 300 * 2**20, "cpu": 350 * 2**20}
"""A process before it allocates anything, where a stack does not say: CUDA context with libraries, or Python with torch."""
_COMPILER_BYTES = 112 * 2**20
"""Of torch's compiler, in the process of the code that it made for a CPU: 111 and 115 MiB, in which one row and eight were read
(what `txlplan bench --task generate` peaked at with `--compile-step` and without; torch 2.13, 2026-11-26). The code of our own
that reads few rows is compiled by another process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statics:
    """Bytes of one process (one device), [candidates] each."""

    parameters_bytes: FloatArray
    optimizer_bytes: FloatArray
    recurrent_memory_bytes: FloatArray
    weight_copies_bytes: FloatArray
    context_bytes: FloatArray

    @property
    def live_bytes(self) -> FloatArray:
        """Of tensors: all but the context."""
        return self.parameters_bytes + self.optimizer_bytes + self.recurrent_memory_bytes + self.weight_copies_bytes


def _copies_bytes(settings: Settings, model: ModelConfig) -> float:
    """Of parameters, beside the stream: autocast's in the precision of products, or those that inference is made with (of all
    but norms and biases of queries); Apex O2's fp32 masters and their fp32 gradients."""
    count, compute = float(parameter_count(model)), settings.numbers.compute
    if settings.numbers.cast and settings.keeps_casts:
        return 0.0
    if settings.numbers.cast:
        wide = sum(prod(shape) for name, shape in parameter_shapes(model).items() if _stays_wide(name))
        return (count - wide * settings.keeps_keys) * compute + _joined_bytes(settings, model)
    halves = settings.task == "train" and settings.numbers.wide < 4.0 and not settings.full_precision_copy
    return 8.0 * count if halves else _joined_bytes(settings, model)


def _joined_bytes(settings: Settings, model: ModelConfig) -> float:
    """Vectors of the head's words and of the further clusters, which inference joins once."""
    if not settings.keeps_keys or model.n_clusters == 1:
        return 0.0
    return outputs(model, 0) * model.embed_width * settings.numbers.compute


def _stays_wide(name: str) -> bool:
    return ".norm." in name or name.endswith(("content_bias", "position_bias"))


def all_reduce_bytes(settings: Settings) -> float:
    """Payload of the gradients' all-reduce; no memory of its own (gradients are views of the buckets)."""
    return parameter_count(settings.sharded) * settings.numbers.wide if settings.task == "train" else 0.0


def statics(settings: Settings, micro_batch: FloatArray, accumulation: FloatArray, stack: StackProfile, kind: str) -> Statics:
    """Parameters, optimizer states, recurrent memory of every accumulation chunk, autocast's copies of weights, context.

    Graphs of layers read their memory from a place of their own, and write it to another; where gradients are added to those of
    earlier micro-batches, theirs lie beside them.
    """
    model, numbers = settings.sharded, settings.numbers
    count = np.full(micro_batch.shape, float(parameter_count(model)))
    training = settings.task == "train"
    remembered = model.mem_len / settings.context_parallel
    memory = model.n_layer * micro_batch * remembered * model.d_model * numbers.wide
    if settings.keeps_keys:
        segment = 1 if settings.task == "generate" else model.tgt_len
        memory = kept_bytes(model, micro_batch, segment, numbers.compute) / settings.context_parallel
        if settings.task == "generate":
            memory = memory + prompt_bytes(model, settings.prompt_len, numbers.compute)
    beside: FloatArray = (settings.captured & (accumulation > 1)).astype(float)
    copies: FloatArray | float = _copies_bytes(settings, model)
    if settings.packs:
        copies = copies + packed_bytes(model, micro_batch, numbers)
    layers = sum(prod(shape) for name, shape in parameter_shapes(model).items() if name.startswith("layers."))
    context = _CONTEXT_BYTES[kind] if stack.context_bytes is None else stack.context_bytes
    if not training and stack.reading_context_bytes is not None:
        context = stack.reading_context_bytes
    return Statics(
        parameters_bytes=count * numbers.wide,
        optimizer_bytes=np.full(micro_batch.shape, state_bytes(settings.optimization, model) if training else 0.0),
        recurrent_memory_bytes=memory * (accumulation + beside),
        weight_copies_bytes=copies + beside * (layers * numbers.wide),
        context_bytes=context + np.where(settings.summed & (micro_batch > SUMMED_ROWS), float(_COMPILER_BYTES), 0.0),
    )
