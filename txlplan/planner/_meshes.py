"""Meshes of devices: which numbers of data-, tensor-, pipeline- and context-parallel devices are considered together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from txlplan.errors import InputError
from txlplan.hardware import Cluster
from txlplan.model import ModelConfig
from txlplan.workload import Workload

if TYPE_CHECKING:
    from txlplan.planner._space import Space


@dataclass(frozen=True, kw_only=True, slots=True)
class Mesh:
    """Sizes of the axes, and parts of the layers that a stage holds."""

    data_parallel: int
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    virtual_stages: int = 1
    context_parallel: int = 1

    def columns(self) -> dict[str, int]:
        """By the names of a plan."""
        return {name: getattr(self, name) for name in self.__slots__}


def meshes(space: Space, workload: Workload, cluster: Cluster) -> Iterator[Mesh]:
    """Every mesh that occupies a number of devices that is considered.

    Devices in all: powers of two and all within a node, then powers of two of whole nodes, and all of them. Tensor and context
    parallelism stay within a node (their messages are many); a pipeline has a power of two of stages, or one that divides the
    layers. On a CPU, and where only what runs is asked for, there is data parallelism alone.
    """
    model, bounded = workload.model, space.bounded(workload, cluster)
    sizes = _sizes(space, cluster)
    tensor = _chosen(space.tensor_parallel, _tensor(model, cluster), bounded)
    context = _chosen(space.context_parallel, _context(model, cluster), bounded)
    pipeline = _chosen(space.pipeline_parallel, _stages(model, cluster), bounded)
    for across in tensor:
        for shared in context:
            for stages in pipeline:
                inner = across * shared * stages
                if space.data_parallel:
                    replicas: Iterable[int] = [n for n in space.data_parallel if n * inner in sizes or inner == 1]
                else:
                    replicas = [size // inner for size in sizes if size % inner == 0]
                for data_parallel in replicas:
                    for virtual in _virtual(space, model, stages, bounded):
                        yield Mesh(
                            data_parallel=data_parallel,
                            tensor_parallel=across,
                            pipeline_parallel=stages,
                            virtual_stages=virtual,
                            context_parallel=shared,
                        )


def powers_of_two(largest: int) -> list[int]:
    """1, 2, 4 … up to `largest`."""
    return [2**power for power in range(largest.bit_length())]


def _sizes(space: Space, cluster: Cluster) -> list[int]:
    """Devices in all."""
    if space.data_parallel:
        per_device = cluster.device.cores if cluster.device.kind == "cpu" else 1
        most = cluster.n_devices * per_device
        beyond = [n for n in space.data_parallel if n > most]
        if beyond:
            raise InputError(f"{beyond[0]} data-parallel processes are more than the cluster has room for ({most})")
    if space.devices:
        return sorted(space.devices)
    whole = {cluster.per_node * nodes for nodes in {*powers_of_two(cluster.n_nodes), cluster.n_nodes}}
    return sorted(whole if space.whole_nodes else whole | set(within_node(cluster)))


def within_node(cluster: Cluster) -> list[int]:
    """Powers of two of the devices of one node, and all of them."""
    return sorted({cluster.per_node, *powers_of_two(cluster.per_node)})


def _chosen(asked: tuple[int, ...] | None, known: list[int], bounded: bool) -> Iterable[int]:
    return asked or ((1,) if bounded else known)


def _tensor(model: ModelConfig, cluster: Cluster) -> list[int]:
    return [n for n in powers_of_two(cluster.per_node) if model.n_head % n == 0 and model.d_inner % n == 0]


def _context(model: ModelConfig, cluster: Cluster) -> list[int]:
    return [n for n in powers_of_two(cluster.per_node) if model.tgt_len % n == 0 and model.mem_len % n == 0]


def _stages(model: ModelConfig, cluster: Cluster) -> list[int]:
    most = min(model.n_layer, cluster.n_devices)
    divisors = {n for n in range(1, most + 1) if model.n_layer % n == 0}
    return sorted(divisors | set(powers_of_two(most)))


def _virtual(space: Space, model: ModelConfig, stages: int, bounded: bool) -> Iterable[int]:
    """Of several stages, powers of two of parts that divide the layers."""
    if space.virtual_stages:
        return space.virtual_stages
    if stages == 1 or bounded:
        return (1,)
    return [n for n in powers_of_two(model.n_layer // stages) if model.n_layer % (stages * n) == 0] or (1,)
