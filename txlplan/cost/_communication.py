"""All-reduce of gradients over data-parallel devices, by latency (alpha) and bandwidth (beta): a ring inside a node, and
across nodes the faster of a ring and a tree of trees.

    ring(S, n) = 2 (n − 1) (alpha + S / (n · B))
    tree(S, n) = 2 (log2(n inside) · alpha inside + log2(nodes) · alpha across + S / B)

(Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"; Sanders, Speck and Träff 2009,
"Two-tree algorithms for full bandwidth broadcast, reduction and scan", which NCCL uses across nodes.) `S · 2 (n − 1) / n / t`
is NCCL's bus bandwidth. Across nodes both are as fast as their slowest hop: the node's own link.
"""

from __future__ import annotations

import numpy as np

from txlplan.cost._op_stream import FloatArray
from txlplan.errors import InputError
from txlplan.hardware import Cluster, Link, StackProfile

_LATENCY_S = {"infiniband": 5e-6, "ethernet": 25e-6, "shared-memory": 35e-6}
"""Per hop, where a link does not say; 3 us for anything inside a node. Gloo's, of an all-reduce of one number between two
processes of one CPU: 25 to 45 us (2 cores of an Intel Xeon, torch 2.13, 2026-11-27)."""
_BUS_SHARE = 0.85
"""Bus bandwidth of a large all-reduce over the link's bandwidth, where it was not measured (NCCL on NVLink: 0.8–0.9)."""
_SHARED_MEMORY_BYTES_PER_S = 1.5e9
"""What processes on one CPU exchange with gloo, where the system has no link: 1.2 to 2.0 GB/s of 8 to 25 MiB between two (lower
quartile and best; 2 cores of an Intel Xeon, torch 2.13, 2026-11-27)."""
_BUCKETED = 2
"""Accesses of memory for each byte of gradients as torch copies them into buckets, divided by the number of processes
(DistributedDataParallel's reducer). A GPU's are left out."""
_WAIT_S = 8e-3
"""What two processes of CPUs lose to each other beside that: two that train `demo-bytes` and a model of 6 × 256 in bf16 took 31
and 118 ms a step where one took 20 and 93, of which buckets and all-reduce explain 3 and 17 (2 cores of an Intel Xeon that did
nothing else meanwhile, torch 2.13, 2026-11-27). Assumed to grow with the logarithm of their number, see `waits`."""


def all_reduce_s(payload_bytes: FloatArray, data_parallel: FloatArray, cluster: Cluster) -> FloatArray:
    """Time of one all-reduce of `payload_bytes` (per device) over `data_parallel` devices, nothing hidden. [candidates]

    Devices fill one node before the next; where several processes share each device, nodes hold equally many of them.
    Raises InputError when plans need a link of which nothing is known.
    """
    inside = np.minimum(data_parallel, np.maximum(cluster.per_node, data_parallel / cluster.n_nodes))
    bandwidth = _inside_bus_bandwidth(cluster, inside)
    latency = np.full(data_parallel.shape, _latency_s(cluster.system.intra_node))
    across = (data_parallel > cluster.per_node) & (cluster.n_nodes > 1)
    if across.any():
        link = cluster.system.inter_node
        if link is None:
            raise InputError(
                f"{cluster.system.id} has no inter_node link, so {cluster.n_nodes} of it cannot train together",
                hint="add inter_node to the system profile, or use one node",
            )
        bandwidth = np.where(across, np.minimum(bandwidth, _bus_bandwidth(link)), bandwidth)
        latency = np.where(across, _latency_s(link), latency)
    ring_s = 2 * (data_parallel - 1) * (latency + payload_bytes / (data_parallel * bandwidth))
    within_s = np.log2(np.maximum(inside, 1)) * _latency_s(cluster.system.intra_node)
    between_s = np.log2(np.maximum(data_parallel / inside, 1)) * latency
    tree_s = 2 * (within_s + between_s + payload_bytes / bandwidth)
    return np.where(across, np.minimum(ring_s, tree_s), ring_s)


def exchange_s(payload_bytes: FloatArray, data_parallel: FloatArray, cluster: Cluster, stack: StackProfile) -> FloatArray:
    """Time of one exchange of all gradients, hidden or not. [candidates]"""
    if stack.gradient_sync == "none":
        return np.zeros(data_parallel.shape)
    kernels = stack.kernels
    if kernels is None:
        found = all_reduce_s(payload_bytes, data_parallel, cluster)
        return found + _by_processes_s(payload_bytes, data_parallel, cluster)
    communication = all_reduce_s(payload_bytes / kernels.all_reduce, data_parallel, cluster)
    communication = communication + kernels.all_reduce_traffic * memory_s(payload_bytes, cluster)
    communication = communication + waits(data_parallel) * kernels.all_reduce_wait_s
    return np.where(data_parallel > 1, communication, 0.0)


def _by_processes_s(payload_bytes: FloatArray, data_parallel: FloatArray, cluster: Cluster) -> FloatArray:
    """What processes on CPUs take beside: they fill buckets, those of one CPU by its bandwidth, and wait for each other.
    [candidates]"""
    if cluster.device.kind != "cpu":
        return np.zeros(data_parallel.shape)
    sharing = np.ceil(data_parallel / cluster.n_devices)
    buckets_s = _BUCKETED * sharing * memory_s(payload_bytes, cluster)
    return np.where(data_parallel > 1, buckets_s, 0.0) + np.log2(data_parallel) * _WAIT_S


def overlap(stack: StackProfile) -> float:
    """Share of an exchange that may be hidden. Under a fitted kernel model none: the tied embedding, most of the payload, has
    its gradient last."""
    return stack.communication_overlap if stack.kernels is None else 0.0


def memory_s(payload_bytes: FloatArray, cluster: Cluster) -> FloatArray:
    """Time of one access of the device's memory for each byte of gradients, [candidates]."""
    return payload_bytes / cluster.device.memory_bandwidth_bytes_per_s


def waits(data_parallel: FloatArray) -> FloatArray:
    """How long devices wait for the slowest, in the wait of four: it grows with the logarithm of their number."""
    return np.log2(data_parallel) / 2


def _inside_bus_bandwidth(cluster: Cluster, devices: FloatArray) -> FloatArray:
    link = cluster.system.intra_node
    if link is None:
        return np.full(devices.shape, _SHARED_MEMORY_BYTES_PER_S)
    return _bus_bandwidth(link) * _share_of_links(link, devices, cluster.system.n_devices)


def _bus_bandwidth(link: Link) -> float:
    return link.all_reduce_bus_bandwidth_bytes_per_s or link.bandwidth_bytes_per_s * _BUS_SHARE


def _share_of_links(link: Link, devices: FloatArray, installed: int) -> FloatArray:
    """Share of a device's links that lead to the devices used.

    In the hybrid cube mesh of a DGX-1V each V100 has six links: one to each of the first two neighbours of its quad, two
    to the third and two across (NVIDIA DGX-1 with Tesla V100 system architecture, 2017, fig. 4). Neighbours 0 and 1 share
    one link of six, a quad four.
    """
    if not link.kind.endswith("cube-mesh"):
        return np.ones(devices.shape)
    return np.select([devices <= 2, devices < installed], [1 / 6, 4 / 6], default=1.0)


def _latency_s(link: Link | None) -> float:
    if link is None:
        return _LATENCY_S["shared-memory"]
    return _LATENCY_S.get(link.kind, 3e-6) if link.latency_s is None else link.latency_s
