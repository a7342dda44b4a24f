"""The plans that are considered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from txlplan.choices import AttentionPath, Checkpointing, Offload, Precision, StatePrecision
from txlplan.cost import Estimates, Plans, allowed, check, estimate
from txlplan.cost._compiled_layer import MASK
from txlplan.cost._plans import code
from txlplan.errors import InputError
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.planner._meshes import Mesh, meshes, powers_of_two
from txlplan.workload import Workload

DEFAULT_TRAIN_BATCH = 32
"""Sequences per optimizer step where neither the workload nor the model's publication says: small enough for one CPU,
and within what Transformer-XL was published with (22 to 256)."""
LARGEST_INFERENCE_BATCH = 256
"""Score and generate have no published batch; micro-batches up to this power of two are tried, and no more rows than have
tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Axes of the search; None leaves an axis to what the cluster and the workload allow."""

    precision: tuple[Precision, ...] | None = None
    micro_batch: tuple[int, ...] | None = None
    activation_checkpointing: tuple[Checkpointing, ...] | None = None
    checkpointed_layers: tuple[int, ...] | None = None
    """Layers of each stage that checkpoint, where any do; None: every number of them, the best of which is found."""
    threads: tuple[int, ...] | None = None
    """CPU threads of a process; ignored on other devices."""
    attention: tuple[AttentionPath, ...] | None = None
    """How attention is computed. None: either way where our stack trains on a CPU, on which tiles do not pay for every shape,
    and, where it trains or scores, by code of our own where it was measured with that, and with dropout where the model drops;
    elsewhere the fast path."""
    own_code: tuple[Precision, ...] = get_args(Precision)
    """Precisions in which attention may be computed by code of our own: a machine has it where a C++ compiler is there, and of
    bf16 where its CPU multiplies that."""
    data_parallel: tuple[int, ...] | None = None
    tensor_parallel: tuple[int, ...] | None = None
    pipeline_parallel: tuple[int, ...] | None = None
    virtual_stages: tuple[int, ...] | None = None
    context_parallel: tuple[int, ...] | None = None
    zero_stage: tuple[int, ...] | None = None
    optimizer_precision: tuple[StatePrecision, ...] = ("fp32",)
    """Narrower states change what is learned, so that they are considered only where they are asked for."""
    offload: tuple[Offload, ...] | None = None
    compile: bool | None = None
    """Whether a token's step is compiled (generate; None: it is not), or layers are graphs of kernels (train; None: either
    way where our stack trains on one GPU)."""
    runnable: bool = False
    """Only what the engine of this version executes."""
    devices: tuple[int, ...] | None = None
    """Devices in all."""
    whole_nodes: bool = False
    """Only plans that leave no device of a node idle; without effect beside `devices`."""

    def plans(self, workload: Workload, cluster: Cluster, stack: StackProfile) -> Plans:
        """Every plan of the space, checkpointed ones included.

        Raises InputError for a precision that the device lacks, or when no plan is left.
        """
        plain = self.plain(workload, cluster, stack)
        parts = [self.checkpointed(estimate(workload, cluster, stack, plain))]
        if "none" in self.kinds(workload):
            parts.insert(0, plain)
        plans = Plans.joined(parts)
        if not len(plans):
            raise InputError(
                f"no stage has the {self.checkpointed_layers} layers that are to checkpoint",
                hint="checkpoint fewer layers, or leave their number to the planner",
            )
        return plans

    def plain(self, workload: Workload, cluster: Cluster, stack: StackProfile) -> Plans:
        """Every plan without its checkpointing. Raises InputError as `plans` does."""
        every = self._product(list(self._layouts(workload, cluster)), workload, cluster, stack)
        plans = every.take(allowed(every, cluster, workload, stack))
        if len(every) and not len(plans):
            check(every, cluster, workload, stack)
        if not len(plans):
            raise InputError(
                f"no plan divides a global batch of {global_batch(workload)} as asked",
                hint="the global batch is micro-batch × accumulation × data-parallel devices: change one of them",
            )
        return plans

    def checkpointed(self, estimates: Estimates) -> Plans:
        """Every way to checkpoint each of some plain plans: kinds, and numbers of layers; possibly none.

        Numbers of layers that are fewer than those of the largest stage differ; so many, or more, are all.
        """
        plain, workload = estimates.plans, estimates.workload
        kinds = [kind for kind in self.kinds(workload) if kind != "none"]
        parts = []
        for kind in kinds:
            for layers in self._numbers_of_layers(workload.model.n_layer):
                some = np.flatnonzero(_checkpoints(estimates, layers))
                place = get_args(Checkpointing).index(kind)
                parts.append(plain.take(some).replaced(activation_checkpointing=place, checkpointed_layers=layers))
        return Plans.joined(parts) if parts else Plans.of([])

    def kinds(self, workload: Workload) -> tuple[Checkpointing, ...]:
        """What is considered of checkpointing."""
        if workload.task != "train":
            return ("none",)
        return self.activation_checkpointing or get_args(Checkpointing)

    def bounded(self, workload: Workload, cluster: Cluster) -> bool:
        """Whether the space keeps to what runs: asked for, or on CPUs and in inference, where the rest has no use."""
        return self.runnable or cluster.device.kind == "cpu" or workload.task != "train"

    def _numbers_of_layers(self, n_layer: int) -> Sequence[int]:
        """0 is all."""
        if self.checkpointed_layers is not None:
            return self.checkpointed_layers
        return (0, *range(1, n_layer))

    def _layouts(self, workload: Workload, cluster: Cluster) -> Iterator[tuple[int, ...]]:
        """Mesh, micro-batch, accumulation and ZeRO stage, as `_LAYOUT` orders them."""
        bounded = self.bounded(workload, cluster)
        for mesh in meshes(self, workload, cluster):
            sharded = mesh.data_parallel * mesh.context_parallel > 1
            stages = self.zero_stage or ((0, 1, 2, 3) if sharded and not bounded else (0,))
            columns = tuple(mesh.columns().values())
            for micro_batch, accumulation in self._batches(workload, cluster, mesh):
                for stage in stages:
                    yield (*columns, micro_batch, accumulation, stage)

    def _product(self, layouts: list[tuple[int, ...]], workload: Workload, cluster: Cluster, stack: StackProfile) -> Plans:
        """Every layout with everything that does not depend on it."""
        bounded = self.bounded(workload, cluster)
        axes: dict[str, Sequence[int]] = {
            "precision": [get_args(Precision).index(name) for name in self._precisions(workload, cluster)],
            "threads": self._threads(cluster),
            "attention": [code("attention", name) for name in self.attention or self._attention(workload, cluster, stack)],
            "offload": [
                get_args(Offload).index(name) for name in self.offload or (("none",) if bounded else get_args(Offload))
            ],
            "optimizer_precision": [get_args(StatePrecision).index(name) for name in self.optimizer_precision],
            "compile": self._compile(workload, cluster, stack),
            "layout": range(len(layouts)),
        }
        grid = np.meshgrid(*(np.asarray(values, dtype=np.int32) for values in axes.values()), indexing="ij")
        columns = {name: values.ravel() for name, values in zip(axes, grid, strict=True)}
        rows = np.array(layouts, dtype=np.int32).reshape(len(layouts), len(_LAYOUT))[columns.pop("layout")]
        columns |= dict(zip(_LAYOUT, rows.T, strict=True))
        plans = Plans.from_columns(len(rows), **columns)
        return plans.take(np.flatnonzero(self._computable(plans, workload, cluster, stack)))

    def unmeasured_attention(self, workload: Workload, cluster: Cluster, stack: StackProfile) -> bool:
        """Whether plans leave attention of our own out because the stack was not measured with it."""
        may = _has_own_code(workload, cluster, stack) and bool(self.own_code) and not self.attention
        return may and not self._own_code(workload, stack)

    def _attention(self, workload: Workload, cluster: Cluster, stack: StackProfile) -> tuple[AttentionPath, ...]:
        if not _has_own_code(workload, cluster, stack):
            return ("fast",)
        plain: tuple[AttentionPath, ...] = ("fast", "reference") if workload.task == "train" else ("fast",)
        return (*plain, "compiled") if self._own_code(workload, stack) else plain

    def _own_code(self, workload: Workload, stack: StackProfile) -> list[Precision]:
        """Those of `own_code` in which the stack was measured with attention of our own, each way, and with dropout of our own
        where the workload drops.

        That draws as it drops: by operations that only move as much, it would be several times too quick, and chosen for that.
        """
        attention = {(point.dtype, point.phase) for point in stack.efficiency if point.kind == "attention"}
        dropout = {point.dtype for point in stack.efficiency if point.kind == "dropout"}
        return [
            precision
            for precision in self.own_code
            if attention >= {(precision, "forward"), (precision, "backward")} and dropout >= _dropped(workload, precision)
        ]

    def _computable(self, plans: Plans, workload: Workload, cluster: Cluster, stack: StackProfile) -> npt.NDArray[np.bool_]:
        """Which plans compute attention as it may be and, where nobody asks for a way, as the stack was measured."""
        precisions = self.own_code if self.attention else self._own_code(workload, stack)
        computed = [name for name in get_args(Precision) if self._computes_in(name, workload, cluster) in precisions]
        known = np.isin(plans.precision, [code("precision", name) for name in computed])
        computable: npt.NDArray[np.bool_] = known | (plans.attention != code("attention", "compiled"))
        return computable

    def _compile(self, workload: Workload, cluster: Cluster, stack: StackProfile) -> tuple[int, ...]:
        if self.compile is not None:
            return (int(self.compile),)
        captures = workload.task == "train" and stack.implementation == "fused" and cluster.device.kind == "gpu"
        return (0, 1) if captures else (0,)

    def _precisions(self, workload: Workload, cluster: Cluster) -> tuple[Precision, ...]:
        """Those that are asked for, or all in which the device computes what is to be done."""
        known = tuple(name for name in get_args(Precision) if cluster.device.peak(name) is not None)
        lacking = [name for name in self.precision or () if name not in known]
        if lacking:
            raise InputError(f"{cluster.device.name} has no {lacking[0]}", hint=cluster.device.known_precisions())
        if self.precision:
            return self.precision
        return tuple(
            name
            for name in known
            if not (name == "fp16" and cluster.device.kind == "cpu") and self._computes_in(name, workload, cluster) == name
        )

    def _computes_in(self, precision: Precision, workload: Workload, cluster: Cluster) -> Precision:
        plan = Plan(micro_batch=1, precision=precision, compile=bool(self.compile))
        return plan.computes_in(workload.task, bf16_units=cluster.device.multiplies_bf16)

    def _threads(self, cluster: Cluster) -> tuple[int, ...]:
        """0 is none."""
        if cluster.device.kind != "cpu":
            return (0,)
        if self.threads:
            return self.threads
        cores = cluster.device.cores
        return tuple(sorted({cores, *powers_of_two(cores)}))

    def _batches(self, workload: Workload, cluster: Cluster, mesh: Mesh) -> Iterator[tuple[int, int]]:
        """Micro-batch and accumulation that make up the global batch (train), or the micro-batches to try (others).

        The recurrent memory of all accumulation chunks depends on their product alone: where it exceeds the device by itself,
        no way to split the batch fits, and the smallest micro-batch stands for all.
        """
        totals = global_batches(workload)
        if not totals:
            yield from ((size, 1) for size in self.micro_batch or powers_of_two(_most_rows(workload, mesh)))
        for total in totals:
            if total % mesh.data_parallel:
                continue
            share = total // mesh.data_parallel
            sizes = [size for size in self.micro_batch or divisors(share) if share % size == 0]
            if workload.task != "train":
                sizes = [size for size in sizes if size == share]
            elif share * _least_remembered_bytes(workload, mesh) > cluster.device.usable_bytes():
                sizes = sizes[:1]
            yield from ((size, share // size) for size in sizes)


def _most_rows(workload: Workload, mesh: Mesh) -> int:
    """Of a device that scores or generates: no more than one step of all devices needs for all tokens, one at least."""
    if workload.tokens is None:
        return LARGEST_INFERENCE_BATCH
    each = 1 if workload.task == "generate" else workload.model.tgt_len
    return max(1, min(LARGEST_INFERENCE_BATCH, workload.tokens // (each * mesh.data_parallel)))


def _has_own_code(workload: Workload, cluster: Cluster, stack: StackProfile) -> bool:
    """Whether there is attention of our own for what the stack runs there."""
    return cluster.device.kind == "cpu" and stack.implementation == "fast" and workload.task != "generate"


def _dropped(workload: Workload, precision: Precision) -> set[str]:
    """Dtypes of what dropout of our own would drop or draw."""
    if workload.task != "train":
        return set()
    return ({precision} if workload.model.dropout > 0 else set()) | ({MASK} if workload.model.dropatt > 0 else set())


def _least_remembered_bytes(workload: Workload, mesh: Mesh) -> float:
    """Recurrent memory of one sequence on the device that holds most of it, in two bytes an element: never less."""
    model = workload.model
    return 2.0 * model.n_layer * model.mem_len * model.d_model / (mesh.pipeline_parallel * mesh.context_parallel)


_LAYOUT = (
    "data_parallel",
    "tensor_parallel",
    "pipeline_parallel",
    "virtual_stages",
    "context_parallel",
    "micro_batch",
    "accumulation",
    "zero_stage",
)


def _checkpoints(plain: Estimates, layers: int) -> npt.NDArray[np.bool_]:
    """Which plans can checkpoint so many layers (0: all) of each stage: graphs of kernels compute nothing again."""
    fewer: npt.NDArray[np.bool_] = (plain.plans.compile == 0) & ((layers == 0) | (layers < plain.most_layers))
    return fewer


def n_plans(space: Space, plain: Estimates) -> int:
    """How many plans `space.plans` holds, from the plain ones alone."""
    kinds = space.kinds(plain.workload)
    numbers = space._numbers_of_layers(plain.workload.model.n_layer)
    ways = np.sum([_checkpoints(plain, layers) for layers in numbers], axis=0)
    return int(("none" in kinds) * len(plain) + len([kind for kind in kinds if kind != "none"]) * ways.sum())


def global_batch(workload: Workload) -> int | None:
    """Sequences per step over all devices: the workload's, else the model's published one, else a default; None when free."""
    if workload.global_batch is not None or workload.task != "train":
        return workload.global_batch
    return workload.model.published_batch or DEFAULT_TRAIN_BATCH


def global_batches(workload: Workload) -> tuple[int, ...]:
    """Every number of sequences per step that is considered: one, or a range's doublings and its end; none when free."""
    first, last = global_batch(workload), workload.largest_global_batch
    if first is None:
        return ()
    doublings = [first * 2**power for power in range(((last or first) // first).bit_length())]
    return tuple(sorted({*doublings, last or first}))


def divisors(number: int) -> list[int]:
    """Of a number, the least first."""
    small = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})
