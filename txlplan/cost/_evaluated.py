"""Plans of one layout, costed together as arrays.

What depends on the micro-batch alone (op stream, times, walks over the parts) is computed once per distinct micro-batch; what
depends on stages and checkpointed layers once per distinct combination of these; data parallelism, ZeRO, accumulation and
offload are closed forms on top. A million plans cost little more than that arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from txlplan.cost._exchange import Exchange, exchange
from txlplan.cost._layout import Layout
from txlplan.cost._mesh import message_s
from txlplan.cost._occupied import Occupied, Walked, gradients_exist, occupied, walked_peak, whatever_is_kept_bytes
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._parts import Parts
from txlplan.cost._pipeline import StageTime, stage_time, stages_of
from txlplan.cost._plans import IntArray, Plans
from txlplan.cost._stages import Stage
from txlplan.cost._template import template
from txlplan.cost._time import StepTime, crowding, peak_flops_per_s, step_times
from txlplan.cost._updating import Updating, added_share, updating
from txlplan.hardware import StackProfile

Arrays = TypeVar("Arrays", Stage, StageTime, Walked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """One kind of stage (first, inner, last) of every candidate: what it is, takes and holds."""

    stage: Stage
    time: StageTime
    held: Occupied
    weight: FloatArray
    """Stages of this kind, counted in its layers; 0 where a candidate has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """Arrays named `*_s` and `*_bytes` are [candidates]."""

    layout: Layout
    parts: Parts
    plans: Plans
    positions: tuple[Position, ...]
    slowest: IntArray
    """Position that a step waits for."""
    fullest: IntArray
    """Position whose devices hold most."""
    update: Updating
    exchange: Exchange
    exposed_s: FloatArray
    """What a step waits for the exchange."""
    unattributed_s: FloatArray
    """What whole steps take beyond their operations and dispatch."""
    bubble_s: FloatArray
    """Filling and draining the pipeline."""
    step_s: FloatArray
    busy_s: FloatArray
    """Of a step, in which the mean device computes."""
    peak_memory_bytes: FloatArray
    least_memory_bytes: FloatArray
    """What is held however activations are checkpointed."""
    most_layers: FloatArray
    """Of one stage."""

    def model_flops(self) -> float:
        """FLOPs of one step of the first plan on all devices, nothing recomputed and nothing counted twice."""
        stream = self.parts.stream
        if len(self.plans) > 1 or self.layout.settings.tensor_parallel * self.layout.settings.context_parallel > 1:
            size = self.plans.micro_batch[:1].astype(float)
            stream = template(replace(self.layout.settings, tensor_parallel=1, context_parallel=1), size).stream(size)
        total = stream.total(stream.flops, "forward", "backward", "update")[0]
        return float(total * self.plans.accumulation[0] * self.plans.data_parallel[0])

    def times(self) -> FloatArray:
        """How often each operation runs in a step of the first plan, on a device of its slowest stage: [ops]."""
        stage, rows = self.positions[int(self.slowest[0])].stage, self.parts.template.rows
        steps, share = float(self.plans.accumulation[0]), float(stage.layers[0]) / self.layout.settings.model.n_layer
        once = {"memory": share}
        once |= dict.fromkeys(("embedding", "embedding backward"), float(stage.first[0]))
        once |= dict.fromkeys(("before memory", "loss", "loss backward"), float(stage.last[0]))
        once |= dict.fromkeys(("layers", "layers backward"), float(stage.layers[0]))
        found = np.zeros(len(self.parts.stream))
        for name, often in once.items():
            found[rows[name]] = steps * often
        found[self.parts.template.again(self.layout.kind)] += steps * float(stage.checkpointed[0])
        found[rows["accumulation"]] = (steps - 1) * added_share(self.layout, self.plans, self.update.largest_share)[0]
        found[rows["update"]] = self.update.share[0]
        found[self.parts.template.optimizer_rows] = self.update.optimizer_share[0]
        return found

    def reached_share(self) -> float:
        """Of the peak of compute or memory that bounds each operation, what is reached on average over the device's time."""
        stream, device, times = self.parts.stream, self.layout.cluster.device, self.times()
        peak = {dtype: peak_flops_per_s(device, dtype) for dtype in set(stream.dtypes)}
        peaks = np.array([peak[dtype] for dtype in stream.dtypes])
        least_s = np.maximum(stream.flops[:, 0] / peaks, stream.bytes_moved[:, 0] / device.memory_bandwidth_bytes_per_s)
        seconds = self.parts.time.op_s[:, 0]
        return float((np.minimum(least_s, seconds) * times).sum() / (seconds * times).sum())

    def measured_share(self) -> float:
        """Share of the device's time spent in operations of measured shapes, of the first plan."""
        seconds = self.parts.time.op_s[:, 0] * self.times()
        return float((seconds * self.parts.time.measured[:, 0]).sum() / seconds.sum())


def evaluate(layout: Layout, stack: StackProfile, plans: Plans) -> Evaluated:
    """Cost plans of one layout."""
    return next(evaluated([(layout, plans)], stack))


def evaluated(grouped: Sequence[tuple[Layout, Plans]], stack: StackProfile) -> Iterator[Evaluated]:
    """Cost plans of several layouts of one cluster, whose operations are timed together."""
    sizes = [_distinct_sizes(plans) for _, plans in grouped]
    wanted = [(layout, micro_batch) for (layout, _), (micro_batch, _) in zip(grouped, sizes, strict=True)]
    for (layout, plans), (_, column), parts in zip(grouped, sizes, parts_of(wanted, stack), strict=True):
        yield _costed(layout, stack, plans, parts, column)


def _costed(layout: Layout, stack: StackProfile, plans: Plans, parts: Parts, column: IntArray) -> Evaluated:
    accumulation = plans.accumulation.astype(float)
    positions, slower = _positions(layout, stack, parts, plans, column)
    times, weights = [position.time for position in positions], [position.weight for position in positions]
    beyond = stack.unattributed_of(layout.settings.task)
    exist, compute_s = np.array(weights) > 0, [time.compute_s for time in times]
    totals = np.array([time.total_s + beyond * time.compute_s for time in times])
    slowest = np.where(exist, totals, -1.0).argmax(axis=0)
    slow_s = _picked(totals, slowest)
    filled_s = sum(weight * total_s for weight, total_s in zip(weights, totals, strict=True))
    bubble_s = (filled_s - slow_s) / plans.virtual_stages
    update = updating(layout, parts, plans, [position.stage for position in positions], slower)
    sent = exchange(layout, stack, plans, update.largest_share, plans.pipeline_parallel > 1)
    stages_s = accumulation * slow_s
    ready_s = sent.ready_s(times, exist, accumulation, beyond, stages_s)
    peaks = np.where(exist, np.array([position.held.total_bytes for position in positions]), -1.0)
    least = np.where(exist, np.array([whatever_is_kept_bytes(position.held) for position in positions]), -1.0)
    device_s = [time.forward_device_s + time.backward_device_s for time in times]
    busy_s = sum(weight * each for weight, each in zip(weights, device_s, strict=True)) / plans.pipeline_parallel
    return Evaluated(
        layout=layout,
        parts=parts,
        plans=plans,
        positions=positions,
        slowest=slowest,
        fullest=peaks.argmax(axis=0),
        update=update,
        exchange=sent,
        exposed_s=sent.communication_s - (stages_s - ready_s),
        unattributed_s=beyond * (accumulation * _picked(compute_s, slowest) + update.total_s),
        bubble_s=bubble_s,
        step_s=ready_s + bubble_s + (1 + beyond) * update.total_s + update.offload_s + sent.communication_s,
        busy_s=accumulation * busy_s + update.device_s,
        peak_memory_bytes=peaks.max(axis=0),
        least_memory_bytes=least.max(axis=0),
        most_layers=np.where(exist, [position.stage.layers for position in positions], 0.0).max(axis=0),
    )


def _positions(
    layout: Layout, stack: StackProfile, parts: Parts, plans: Plans, column: IntArray
) -> tuple[tuple[Position, ...], FloatArray]:
    """Stages of all plans, worked out once for those that agree in them; and how much slower the host is. [candidates]"""
    some, inverse = _distinct(layout, plans)
    alike = plans.take(some)
    slower = crowding(layout.cluster, stack, alike.n_devices.astype(float))
    messages = _messages_s(layout, alike)
    stages, weights = zip(*_stages(layout, parts, alike, column[some]), strict=True)
    its_plan = np.tile(np.arange(some.size), len(stages))
    every, repeated = (_joined(stages), alike.take(its_plan)) if len(stages) > 1 else (stages[0], alike)
    time = stage_time(layout, parts, every, messages[its_plan], slower[its_plan])
    walked = walked_peak(layout, stack, parts, repeated, every)
    found = []
    for place, weight in enumerate(weights):
        its = inverse + place * some.size
        whole = _spread(every, its)
        held = occupied(layout, stack, plans, whole, _spread(walked, its), place)
        found.append(Position(stage=whole, time=_spread(time, its), held=held, weight=weight[inverse]))
    return tuple(found), slower[inverse]


def _joined(stages: Sequence[Stage]) -> Stage:
    """One after another."""
    return Stage(**{field.name: np.concatenate([getattr(stage, field.name) for stage in stages]) for field in fields(Stage)})


def _distinct_sizes(plans: Plans) -> tuple[FloatArray, IntArray]:
    """Micro-batches, and which of them each plan has."""
    sizes = plans.micro_batch.astype(float)
    if sizes.size == 1:
        return sizes, np.zeros(1, dtype=np.int64)
    distinct, column = np.unique(sizes, return_inverse=True)
    return distinct, column


def _distinct(layout: Layout, plans: Plans) -> tuple[IntArray, IntArray]:
    """Plans that stand for all that have the same stages: their indices, and which of them stands for each plan."""
    if len(plans) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    exist = gradients_exist(layout, plans)
    key = np.minimum(plans.n_devices, layout.cluster.per_node + 1) * 2 + exist
    for values in (plans.pipeline_parallel, plans.virtual_stages, plans.checkpointed_layers, plans.micro_batch):
        key = key * (int(values.max()) + 1) + values
    _, some, inverse = np.unique(key, return_index=True, return_inverse=True)
    return some, inverse


def _spread(arrays: Arrays, inverse: IntArray) -> Arrays:
    """A dataclass of arrays, each of them spread from those that stand for all to all."""
    if len(inverse) == len(getattr(arrays, fields(arrays)[0].name)) == 1:
        return arrays
    return type(arrays)(**{field.name: getattr(arrays, field.name)[inverse] for field in fields(arrays)})


_KEPT, _FEW = 64, 8
"""The most recent parts that are kept, and the most micro-batches of each: some ten megabytes."""
_RECENT: dict[tuple[object, ...], tuple[Parts, Layout, StackProfile]] = {}
"""By what they were made of; profiles are told apart by identity, and kept beside the parts so that it stays theirs."""


def parts_of(wanted: Sequence[tuple[Layout, FloatArray]], stack: StackProfile) -> list[Parts]:
    """The parts of layouts' streams at some micro-batches each, timed; the most recent ones are kept."""
    keys = [_key(layout, stack, micro_batch) for layout, micro_batch in wanted]
    missing = [number for number, key in enumerate(keys) if key not in _RECENT]
    made = dict(zip(missing, _parts([wanted[number] for number in missing], stack), strict=True)) if missing else {}
    found = [made[number] if number in made else _RECENT[key][0] for number, key in enumerate(keys)]
    for number, parts in made.items():
        if parts.micro_batch.size <= _FEW:
            if len(_RECENT) >= _KEPT:
                _RECENT.clear()
            _RECENT[keys[number]] = parts, wanted[number][0], stack
    return found


def _key(layout: Layout, stack: StackProfile, micro_batch: FloatArray) -> tuple[object, ...]:
    cluster = layout.cluster
    return (layout.settings, layout.threads, id(cluster.device), id(cluster.system.host), id(stack), micro_batch.tobytes())


def _parts(wanted: Sequence[tuple[Layout, FloatArray]], stack: StackProfile) -> list[Parts]:
    """Of one cluster; those of as many threads are timed together."""
    patterns = [template(layout.settings, micro_batch) for layout, micro_batch in wanted]
    streams = [pattern.stream(micro_batch) for pattern, (_, micro_batch) in zip(patterns, wanted, strict=True)]
    times: dict[int, StepTime] = {}
    for threads in {layout.threads for layout, _ in wanted}:
        mine = [number for number, (layout, _) in enumerate(wanted) if layout.threads == threads]
        cluster = wanted[mine[0]][0].cluster
        host = cluster.system.host
        speed = host.relative_speed if host else 1.0
        timed = step_times([streams[number] for number in mine], cluster.device, stack, threads, host_speed=speed)
        times |= dict(zip(mine, timed, strict=True))
    return [
        Parts(template=patterns[number], micro_batch=micro_batch, stream=streams[number], time=times[number])
        for number, (_, micro_batch) in enumerate(wanted)
    ]


def _picked(stacked: FloatArray | list[FloatArray], place: IntArray) -> FloatArray:
    """Of [positions, candidates], one position for each candidate."""
    if len(stacked) == 1:
        return stacked[0]
    picked: FloatArray = np.take_along_axis(np.asarray(stacked), place[None, :], axis=0)[0]
    return picked


def _messages_s(layout: Layout, plans: Plans) -> FloatArray:
    """All messages of a micro-batch through one stage: hidden states out and in, and their gradients, for every part of it."""
    model, numbers = layout.settings.model, layout.settings.numbers
    positions = model.tgt_len / layout.settings.context_parallel
    states = plans.micro_batch.astype(float) * (positions * model.d_model * numbers.wide)
    one_s = message_s(states, plans.pipeline_parallel, plans.n_devices, layout.cluster)
    return 2 * plans.virtual_stages * one_s


def _stages(layout: Layout, parts: Parts, plans: Plans, column: IntArray) -> list[tuple[Stage, FloatArray]]:
    """The first, inner and last stages, and how many of each there are, counted in layers."""
    pipeline, n_layer = plans.pipeline_parallel, layout.settings.model.n_layer
    split = stages_of(layout, parts, column, pipeline, plans.virtual_stages)
    asked = np.where(plans.checkpointed_layers == 0, n_layer, plans.checkpointed_layers)
    asked = np.where(layout.kind == "none", 0, asked)
    whole = pipeline == 1

    def stage(layers: FloatArray, first: npt.NDArray[np.bool_], last: npt.NDArray[np.bool_]) -> Stage:
        """Of so many layers; layers beyond those that are to be checkpointed are not."""
        return Stage(
            column=column,
            first=first.astype(float),
            last=last.astype(float),
            layers=layers,
            checkpointed=np.minimum(layers, asked),
        )

    everywhere = np.ones(column.shape, dtype=bool)
    found = [(stage(split.first, everywhere, whole), np.ones(column.shape))]
    if not whole.all():
        between = np.maximum(n_layer - split.first - split.last, 0.0) / np.maximum(split.inner, 1.0)
        inner = np.where(pipeline > 2, between, 0.0)
        found.append((stage(split.inner, ~everywhere, ~everywhere), inner))
        found.append((stage(split.last, whole, everywhere), (~whole).astype(float)))
    return found
