"""Memory of one device of a stage at its fullest."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from txlplan.cost._held import counts
from txlplan.cost._layout import Layout
from txlplan.cost._memory import Peak
from txlplan.cost._op_stream import FIGURES, FloatArray, OpStream
from txlplan.cost._parts import Parts
from txlplan.cost._plans import IntArray, Plans
from txlplan.cost._reserved import cached_bytes, reserved_peak
from txlplan.cost._stages import Stage, stage_peak
from txlplan.cost._statics import statics
from txlplan.cost._updating import shards, state_share
from txlplan.hardware import StackProfile

_HEAP_WASTE = 0.9
"""Share of what comes and goes that a CPU's heap holds beside it, where a stack says nothing: with glibc 2.36 and torch
2.13, steady training steps of eight small models held 0.8 to 1.2 times the activations, gradients and transients more
than those (VmHWM less the process's context and what stays). Freed blocks below the moving mmap threshold stay mapped."""

_HEAP_SAVES = 0.5
"""Of what layers that run again do not keep, the share by which a CPU's heap is smaller: gradients and layers' inputs lie
between what comes and goes, and larger blocks do not fit there. 0 to 0.75, median 0.49, over ten pairs of runs of three small
models, eight and more steps each (what VmHWM is less with full checkpointing than without it, 2 cores of an Intel Xeon, torch
2.13, 2026-11-27)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Occupied:
    """Bytes, [candidates]."""

    parameters_bytes: FloatArray
    """With those of other devices that ZeRO stage 3 has gathered."""
    optimizer_bytes: FloatArray
    recurrent_memory_bytes: FloatArray
    weight_copies_bytes: FloatArray
    context_bytes: FloatArray
    gradient_bytes: FloatArray
    saved_bytes: FloatArray
    """Activations of the micro-batch at the highest point, and of those in flight."""
    transient_bytes: FloatArray
    waste_bytes: FloatArray
    row: IntArray
    """Operation at the highest point."""

    @property
    def total_bytes(self) -> FloatArray:
        """Everything."""
        live = self.parameters_bytes + self.optimizer_bytes + self.recurrent_memory_bytes + self.weight_copies_bytes
        return live + self.gradient_bytes + self.saved_bytes + self.transient_bytes + self.waste_bytes + self.context_bytes


def whatever_is_kept_bytes(found: Occupied) -> FloatArray:
    """What is held however activations are checkpointed: a lower bound of the peak, [candidates]."""
    return (
        found.parameters_bytes
        + found.optimizer_bytes
        + found.recurrent_memory_bytes
        + found.weight_copies_bytes
        + found.context_bytes
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Walked:
    """The highest point of a micro-batch and the update in one kind of stage, bytes [candidates]."""

    saved_bytes: FloatArray
    gradient_bytes: FloatArray
    """All of the stage's, where they are there from the start."""
    transient_bytes: FloatArray
    row: IntArray
    kept_bytes: FloatArray
    """What a further micro-batch in flight keeps for its backward."""
    forgone_bytes: FloatArray
    """How much higher that point would be if layers did not run again; 0 where no heap is to be reckoned with."""


def occupied(layout: Layout, stack: StackProfile, plans: Plans, stage: Stage, walked: Walked, place: int) -> Occupied:
    """Of one kind of stage; `place` 0 is the first, 1 the fullest inner and 2 the last.

    ZeRO 1 shards optimizer states, 2 gradients too, 3 parameters too over the devices that hold the same part of the model
    (arXiv:1910.02054, §5). The recurrent memory is kept of every accumulation chunk, on the stage whose layers it belongs to.
    """
    settings, accumulation, zero = layout.settings, plans.accumulation.astype(float), plans.zero_stage
    kept = statics(settings, plans.micro_batch.astype(float), accumulation, stack, layout.cluster.device.kind)
    held, over = counts(settings.sharded), shards(layout, plans)
    share = held.stage(stage.layers, stage.first, stage.last) / held.model
    sharded = share / np.where(zero == 3, over, 1.0)
    numbers = settings.numbers
    element_bytes = numbers.wide + (numbers.compute if numbers.cast else 0.0)
    gathered = np.where((zero == 3) & (over > 1), held.gathered(stage.first, stage.last) * element_bytes, 0.0)
    waiting = (_in_flight(plans, place) - 1) * walked.kept_bytes
    gradients = walked.gradient_bytes / np.where(zero >= 2, over, 1.0)
    offloaded = plans.offload != 0
    found = Occupied(
        parameters_bytes=kept.parameters_bytes * sharded + gathered,
        optimizer_bytes=np.where(
            offloaded, 0.0, kept.optimizer_bytes * share * state_share(plans) / np.where(zero > 0, over, 1.0)
        ),
        recurrent_memory_bytes=kept.recurrent_memory_bytes * (stage.layers / settings.model.n_layer),
        weight_copies_bytes=kept.weight_copies_bytes * sharded,
        context_bytes=kept.context_bytes,
        gradient_bytes=gradients,
        saved_bytes=walked.saved_bytes + waiting,
        transient_bytes=walked.transient_bytes,
        waste_bytes=np.zeros(len(plans)),
        row=walked.row,
    )
    return replace(found, waste_bytes=_waste(layout, stack, found, walked.forgone_bytes))


def _waste(layout: Layout, stack: StackProfile, found: Occupied, forgone_bytes: FloatArray) -> FloatArray:
    """What the allocator holds beside what is alive: a share of what comes and goes, or cached blocks as there is room.

    A CPU's heap that layers run again in is as large as one they do not, but for `_HEAP_SAVES` of what is not kept.
    """
    if stack.reserved is not None and layout.training:
        room = stack.reserved.ceiling * layout.cluster.device.usable_bytes() - found.total_bytes
        return np.minimum(cached_bytes(layout.settings, stack.reserved), np.maximum(room, 0.0))
    reading = None if layout.training else stack.reading_waste
    share = reading or stack.allocator_waste or (_HEAP_WASTE if layout.cluster.device.kind == "cpu" else 0.0)
    moving = found.gradient_bytes + found.saved_bytes + found.transient_bytes
    return share * (moving + forgone_bytes) + (1 - _HEAP_SAVES) * forgone_bytes


def _in_flight(plans: Plans, place: int) -> FloatArray:
    """Micro-batches whose activations a stage holds at once, see `_pipeline`. [candidates]"""
    pipeline, virtual = plans.pipeline_parallel, plans.virtual_stages
    after = pipeline - 1 if place == 0 else np.maximum(pipeline - 2, 0) if place == 1 else np.zeros_like(pipeline)
    interleaved = (2 * after + (virtual - 1) * pipeline + 1) / virtual
    wanted = np.where(virtual > 1, interleaved, after + 1.0)
    return np.minimum(wanted, plans.accumulation)


def gradients_exist(layout: Layout, plans: Plans) -> npt.NDArray[np.bool_]:
    """Whether all gradients are there from the start: of an earlier micro-batch, or as buckets to be exchanged. [candidates]"""
    return (plans.accumulation > 1) | (shards(layout, plans) > 1)


def walked_peak(layout: Layout, stack: StackProfile, parts: Parts, plans: Plans, stage: Stage) -> Walked:
    """The highest point of one kind of stage of some plans."""
    if stack.reserved is not None and layout.training:
        stream = _stage_stream(parts, stage, layout)
        peak = reserved_peak(stream, np.arange(stage.column.size), layout.settings, stack.reserved)
        return _walked(peak, peak.saved_bytes, np.zeros(stage.column.size))
    n_layer, exist, total = layout.settings.model.n_layer, gradients_exist(layout, plans), _gradients(parts, stage)
    found = {}
    for flag in set(exist.tolist()):
        peak, kept = stage_peak(parts, stage, layout.kind, gradients_exist=flag, n_layer=n_layer)
        forgone = np.zeros(stage.column.size)
        if layout.kind == "full" and layout.cluster.device.kind == "cpu":
            whole = replace(stage, checkpointed=forgone)
            plain, _ = stage_peak(parts, whole, "none", gradients_exist=flag, n_layer=n_layer)
            forgone = np.maximum(plain.total_bytes - peak.total_bytes, 0.0)
        found[flag] = _walked(replace(peak, gradient_bytes=total) if flag else peak, kept, forgone)
    if len(found) == 1:
        return next(iter(found.values()))
    names = [field.name for field in fields(Walked)]
    return Walked(**{name: np.where(exist, getattr(found[True], name), getattr(found[False], name)) for name in names})


def _walked(peak: Peak, kept_bytes: FloatArray, forgone_bytes: FloatArray) -> Walked:
    return Walked(
        saved_bytes=peak.saved_bytes,
        gradient_bytes=peak.gradient_bytes,
        transient_bytes=peak.transient_bytes,
        row=peak.row,
        kept_bytes=kept_bytes,
        forgone_bytes=forgone_bytes,
    )


def _gradients(parts: Parts, stage: Stage) -> FloatArray:
    """Of all parameters of a stage, [candidates]."""
    left, column = parts.gradient_bytes, stage.column
    ends = stage.first * left["embedding backward"][column] + stage.last * left["loss backward"][column]
    return ends + stage.layers * left["layers backward"][column]


def _stage_stream(parts: Parts, stage: Stage, layout: Layout) -> OpStream:
    """The stream with each part as often as the stage has it, for models of memory that add up a whole stream."""
    stream, rows, column = parts.stream, parts.template.rows, stage.column
    repeat = np.zeros((len(stream), column.size))
    for name in ("embedding", "embedding backward"):
        repeat[rows[name]] = stage.first
    for name in ("before memory", "loss", "loss backward"):
        repeat[rows[name]] = stage.last
    for name in ("layers", "layers backward"):
        repeat[rows[name]] = stage.layers
    repeat[rows["memory"]] = stage.layers / layout.settings.model.n_layer
    figures = {name: getattr(stream, name)[:, column] for name in FIGURES}
    saved = stream.saved_bytes[:, column]
    again, note = parts.template.again(layout.kind), parts.template.note("new memory")
    assert note is not None
    repeat[again] = stage.layers - stage.checkpointed
    held = stage.checkpointed if layout.kind == "full" else 0.0 * stage.checkpointed
    boundary = stage.checkpointed * parts.template.boundary(layout.kind, stream)[column]
    saved[note] = parts.memory_bytes[column] * (stage.layers / layout.settings.model.n_layer) + boundary
    saved[note] -= (stage.layers - held) * parts.inputs_bytes[column]
    repeat[note] = 1.0
    old = parts.template.note("old memory")
    assert old is not None
    repeat[old] = np.where(held > 0, 0.0, stage.layers / layout.settings.model.n_layer)
    return stream.with_figures({**figures, "saved_bytes": saved, "repeat": repeat})
