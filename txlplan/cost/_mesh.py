"""Collectives of the axes of the mesh: who is in a group, over which links it talks, and for how long.

Devices are numbered with tensor parallelism innermost, then context, data and pipeline parallelism, so that what talks most
often is nearest (Narayanan et al. 2021, arXiv:2104.04473, §3). A group whose members lie `stride` devices apart sees a node as
one of so many fewer devices, and shares the node's link with the groups between them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from txlplan.cost._communication import all_reduce_s
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._plans import IntArray
from txlplan.errors import InputError
from txlplan.hardware import Cluster, Link

_BUS_SHARE = 0.85
"""Of a link's bandwidth that one message between two devices reaches, as for collectives."""
_SHARED_MEMORY_BYTES_PER_S, _SHARED_MEMORY_LATENCY_S = 4e9, 20e-6
"""Between devices of which no link is known: through the host's memory, as for collectives."""
_LATENCY_S = {"infiniband": 5e-6, "ethernet": 25e-6}
"""Of one message, where a link does not say; 3 us for anything inside a node."""


def group_cluster(cluster: Cluster, stride: int) -> Cluster:
    """The cluster as a group sees it whose members lie `stride` devices apart."""
    if stride == 1:
        return cluster
    system, sharing = cluster.system, min(stride, cluster.per_node)
    link = system.inter_node
    if link is not None:
        measured = link.all_reduce_bus_bandwidth_bytes_per_s
        link = replace(
            link,
            bandwidth_bytes_per_s=link.bandwidth_bytes_per_s / sharing,
            all_reduce_bus_bandwidth_bytes_per_s=None if measured is None else measured / sharing,
        )
    return replace(cluster, system=replace(system, inter_node=link), devices_per_node=max(cluster.per_node // stride, 1))


def tensor_all_reduce_s(payload_bytes: FloatArray, tensor_parallel: int, cluster: Cluster) -> FloatArray:
    """One all-reduce of activations between the devices that share a layer; nothing hides it. [candidates]"""
    if tensor_parallel == 1:
        return np.zeros(payload_bytes.shape)
    return all_reduce_s(payload_bytes, np.full(payload_bytes.shape, float(tensor_parallel)), cluster)


def context_gather_s(payload_bytes: FloatArray, context_parallel: int, tensor_parallel: int, cluster: Cluster) -> FloatArray:
    """One all-gather (or reduce-scatter) of the keys and values of all positions: half an all-reduce. [candidates]"""
    if context_parallel == 1:
        return np.zeros(payload_bytes.shape)
    group = group_cluster(cluster, tensor_parallel)
    return all_reduce_s(payload_bytes, np.full(payload_bytes.shape, float(context_parallel)), group) / 2


def message_s(payload_bytes: FloatArray, stages: IntArray, n_devices: IntArray, cluster: Cluster) -> FloatArray:
    """One message between neighbouring stages: latency + bytes / bandwidth, all devices of a node at once. [candidates]

    Stages are the outermost axis: where the mesh is larger than a node, neighbours are taken to lie on different ones.
    """
    found = np.zeros(payload_bytes.shape)
    inside = (stages > 1) & (n_devices <= cluster.per_node)
    across = (stages > 1) & (n_devices > cluster.per_node)
    if inside.any():
        found = np.where(inside, _message_s(cluster.system.intra_node, payload_bytes, 1), found)
    if across.any():
        if cluster.system.inter_node is None:
            raise InputError(
                f"{cluster.system.id} has no inter_node link, so {cluster.n_nodes} of it cannot train together",
                hint="add inter_node to the system profile, or use one node",
            )
        found = np.where(across, _message_s(cluster.system.inter_node, payload_bytes, cluster.per_node), found)
    return found


def _message_s(link: Link | None, payload_bytes: FloatArray, sharing: int) -> FloatArray:
    if link is None:
        return _SHARED_MEMORY_LATENCY_S + payload_bytes / _SHARED_MEMORY_BYTES_PER_S
    return _latency_s(link) + payload_bytes / (link.bandwidth_bytes_per_s * _BUS_SHARE / sharing)


def _latency_s(link: Link) -> float:
    return _LATENCY_S.get(link.kind, 3e-6) if link.latency_s is None else link.latency_s
