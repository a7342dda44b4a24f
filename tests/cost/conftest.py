"""A cluster of two small GPUs and a CPU, with figures that are easy to reckon with."""

from __future__ import annotations

import pytest
from machine_factory import CPU, GPU, PC

from txlplan.hardware import Cluster, DeviceProfile, EfficiencyPoint, Link, StackProfile, SystemProfile

_SYSTEM = SystemProfile(
    id="box",
    name="Box",
    kind="server",
    device="gpu",
    n_devices=8,
    intra_node=Link(kind="nvlink2-cube-mesh", bandwidth_bytes_per_s=150e9, latency_s=1e-6),
    inter_node=Link(kind="infiniband", bandwidth_bytes_per_s=12.5e9, latency_s=5e-6),
)


@pytest.fixture
def gpu() -> DeviceProfile:
    return GPU


@pytest.fixture
def cpu() -> DeviceProfile:
    return CPU


@pytest.fixture
def gpus(gpu: DeviceProfile) -> Cluster:
    return Cluster(system=_SYSTEM, device=gpu, n_nodes=2)


@pytest.fixture
def cpus() -> Cluster:
    return PC


@pytest.fixture
def stack() -> StackProfile:
    """Nothing measured."""
    return StackProfile(id="plain", family="txlplan", version="0")


@pytest.fixture
def measured_stack() -> StackProfile:
    """A few measured products and streams on `cpu`."""
    products = [((64, 64, 64), 0.2), ((512, 512, 256), 0.6), ((2048, 768, 256), 0.7)]
    gemms = tuple(
        EfficiencyPoint(kind="gemm", dtype="fp32", work=2.0 * m * n * k, utilisation=share, m=m, n=n, k=k)
        for (m, n, k), share in products
    )
    streams = tuple(
        EfficiencyPoint(kind="elementwise", dtype="fp32", work=work, utilisation=share)
        for work, share in ((1e5, 2.0), (1e6, 1.5), (1e8, 0.8))
    )
    return StackProfile(
        id="measured",
        family="txlplan",
        version="0",
        efficiency=gemms + streams,
        host_op_s=5e-6,
        host_backward_op_s=9e-6,
        measured_device="cpu",
        context_bytes=200 * 2**20,
        provenance="measured",
    )
