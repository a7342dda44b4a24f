"""Optimizer states on the host: gradients go down, updated parameters come back, the host's cores update in between.

    t = bytes of gradients / link + bytes of an update / host memory bandwidth + bytes of parameters / link

(ZeRO-Offload: Ren et al. 2021, arXiv:2101.06840, without its delayed update: nothing is hidden.) Devices of a node share the
host's memory bandwidth, and each has its own PCIe lanes.
"""

from __future__ import annotations

from txlplan.cost._op_stream import FloatArray
from txlplan.hardware import Cluster

_LINK_BYTES_PER_S = {"pascal": 16e9, "volta": 16e9, "turing": 16e9, "ampere": 32e9, "ada": 32e9, "hopper": 64e9}
"""One direction of 16 lanes of PCI Express 3, 4 and 5 (PCI-SIG: 8, 16 and 32 GT/s a lane), by the generation of the device."""
_OLDEST = 16e9
_LINK_SHARE = 0.8
"""Of it that large pinned copies reach; assumed."""
_SOCKET_BYTES_PER_S = 100e9
"""Memory bandwidth that an update reaches on one socket: half to three quarters of six to eight channels of DDR4; assumed."""
_UPDATE_BYTES = 16.0
"""Per parameter beside its states: gradient read, parameter read and written, and its copy for the device; all fp32."""


def host_link_bytes_per_s(cluster: Cluster) -> float:
    """What one device reaches to the host: the host's figure, or that of its generation's bus."""
    host = cluster.system.host
    stated = None if host is None else host.link_bandwidth_bytes_per_s
    return _LINK_SHARE * (stated or _LINK_BYTES_PER_S.get(cluster.device.architecture, _OLDEST))


def offload_s(parameters: FloatArray, state_bytes: FloatArray, wide: float, cluster: Cluster) -> FloatArray:
    """Time of one update of `parameters` with `state_bytes` of states for each device, [candidates]."""
    host = cluster.system.host
    sockets = host.sockets if host else 1
    host_s = (parameters * _UPDATE_BYTES + 2 * state_bytes) * cluster.per_node / (sockets * _SOCKET_BYTES_PER_S)
    return 2 * parameters * wide / host_link_bytes_per_s(cluster) + host_s
