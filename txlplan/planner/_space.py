"""The plans that are considered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from txlplan.choices import Checkpointing, Precision
from txlplan.errors import InputError
from txlplan.hardware import Cluster
from txlplan.plan_file import Plan
from txlplan.workload import Workload

DEFAULT_TRAIN_BATCH = 32
"""Sequences per optimizer step where neither the workload nor the model's publication says: small enough for one CPU,
and within what Transformer-XL was published with (22 to 256)."""
LARGEST_INFERENCE_BATCH = 256
"""Score and generate have no published batch; micro-batches up to this power of two are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Axes of the search; None leaves an axis to what the cluster and the workload allow."""

    precision: tuple[Precision, ...] | None = None
    micro_batch: tuple[int, ...] | None = None
    activation_checkpointing: tuple[Checkpointing, ...] | None = None
    threads: tuple[int, ...] | None = None
    """CPU threads of a process; ignored on other devices."""
    data_parallel: tuple[int, ...] | None = None
    compile: bool = False
    """Whether the step is compiled (generate)."""

    def plans(self, workload: Workload, cluster: Cluster) -> list[Plan]:
        """Every plan of the space. Raises InputError for a precision that the device lacks, or when no plan is left."""
        plans = [
            Plan(
                micro_batch=micro_batch,
                accumulation=accumulation,
                precision=precision,
                data_parallel=data_parallel,
                activation_checkpointing=checkpointing,
                threads=threads,
                compile=self.compile,
            )
            for precision in self._precisions(cluster)
            for checkpointing in self._checkpointing(workload)
            for threads in self._threads(cluster)
            for data_parallel in self._data_parallel(cluster)
            for micro_batch, accumulation in self._batches(workload, data_parallel)
        ]
        if not plans:
            raise InputError(
                f"no plan divides a global batch of {global_batch(workload)} as asked",
                hint="the global batch is micro-batch × accumulation × data-parallel devices: change one of them",
            )
        return plans

    def _precisions(self, cluster: Cluster) -> tuple[Precision, ...]:
        known = tuple(name for name in get_args(Precision) if cluster.device.peak(name) is not None)
        lacking = [name for name in self.precision or () if name not in known]
        if lacking:
            raise InputError(f"{cluster.device.name} has no {lacking[0]}", hint=f"it has {', '.join(known)}")
        if self.precision:
            return self.precision
        return tuple(name for name in known if not (name == "fp16" and cluster.device.kind == "cpu"))

    def _checkpointing(self, workload: Workload) -> tuple[Checkpointing, ...]:
        if workload.task != "train":
            return ("none",)
        return self.activation_checkpointing or ("none", "full")

    def _threads(self, cluster: Cluster) -> tuple[int | None, ...]:
        if cluster.device.kind != "cpu":
            return (None,)
        if self.threads:
            return self.threads
        cores = cluster.device.cores
        return tuple(sorted({cores, *_powers_of_two(cores)}))

    def _data_parallel(self, cluster: Cluster) -> tuple[int, ...]:
        if self.data_parallel:
            per_device = cluster.device.cores if cluster.device.kind == "cpu" else 1
            most = cluster.n_devices * per_device
            beyond = [n for n in self.data_parallel if n > most]
            if beyond:
                raise InputError(f"{beyond[0]} data-parallel processes are more than the cluster has room for ({most})")
            return self.data_parallel
        inside = {cluster.per_node, *_powers_of_two(cluster.per_node)}
        return tuple(
            sorted(inside | {cluster.per_node * nodes for nodes in {*_powers_of_two(cluster.n_nodes), cluster.n_nodes}})
        )

    def _batches(self, workload: Workload, data_parallel: int) -> Iterator[tuple[int, int]]:
        """Micro-batch and accumulation that make up the global batch (train), or the micro-batches to try (others)."""
        total = global_batch(workload)
        if total is None:
            yield from ((size, 1) for size in self.micro_batch or _powers_of_two(LARGEST_INFERENCE_BATCH))
            return
        if total % data_parallel:
            return
        share = total // data_parallel
        for size in self.micro_batch or _divisors(share):
            if share % size == 0 and (workload.task == "train" or size == share):
                yield size, share // size


def global_batch(workload: Workload) -> int | None:
    """Sequences per step over all devices: the workload's, else the model's published one, else a default; None when free."""
    if workload.global_batch is not None or workload.task != "train":
        return workload.global_batch
    return workload.model.published_batch or DEFAULT_TRAIN_BATCH


def _powers_of_two(largest: int) -> list[int]:
    return [2**power for power in range(largest.bit_length())]


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
