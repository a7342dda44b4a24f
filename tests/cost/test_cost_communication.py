"""All-reduce re-derived hop by hop, and its edge cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from txlplan.cost import estimate
from txlplan.cost._communication import all_reduce_s, exchange_s
from txlplan.errors import InputError
from txlplan.hardware import Cluster, Link, StackProfile
from txlplan.model import ModelConfig, parameter_count
from txlplan.plan_file import Plan
from txlplan.workload import Workload

MODEL = ModelConfig(id="m", n_layer=2, d_model=64, n_head=4, d_head=16, d_inner=128, vocab_size=500, tgt_len=32, mem_len=32)


def _ring_by_steps(payload_bytes: float, devices: int, bandwidth: float, latency_s: float) -> float:
    """Send one of `devices` chunks per step: reduce-scatter, then all-gather."""
    chunk = payload_bytes / devices
    return sum(latency_s + chunk / bandwidth for _phase in ("reduce-scatter", "all-gather") for _ in range(devices - 1))


@pytest.mark.parametrize(("devices", "share"), [(1, 1), (2, 1 / 6), (4, 4 / 6), (8, 1)])
def test_inside_a_cube_mesh(gpus: Cluster, devices: int, share: float) -> None:
    found = all_reduce_s(np.array([4e8]), np.array([float(devices)]), gpus)
    assert found == pytest.approx(_ring_by_steps(4e8, devices, 150e9 * 0.85 * share, 1e-6))


def test_measured_bus_bandwidth_is_used(gpus: Cluster) -> None:
    link = replace(gpus.system.intra_node, all_reduce_bus_bandwidth_bytes_per_s=135e9)
    cluster = replace(gpus, system=replace(gpus.system, intra_node=link))
    found = all_reduce_s(np.array([4e8]), np.array([8.0]), cluster)
    assert found == pytest.approx(_ring_by_steps(4e8, 8, 135e9, 1e-6))


def test_across_nodes_the_slowest_hop_decides(gpus: Cluster) -> None:
    found = all_reduce_s(np.array([4e8]), np.array([16.0]), gpus)
    assert found == pytest.approx(_ring_by_steps(4e8, 16, 12.5e9 * 0.85, 5e-6))


def test_small_payloads_go_up_and_down_a_tree_across_nodes(gpus: Cluster) -> None:
    """16 nodes of 8: 3 hops inside, 4 between, there and back, instead of 2 · 127 round a ring; large payloads take that."""
    many = replace(gpus, n_nodes=16)
    small, large = (all_reduce_s(np.array([payload]), np.array([128.0]), many)[0] for payload in (1e3, 1e10))
    bandwidth = min(150e9, gpus.system.inter_node.bandwidth_bytes_per_s) * 0.85
    across_s = gpus.system.inter_node.latency_s or 5e-6
    assert small == pytest.approx(2 * (3 * 1e-6 + 4 * across_s + 1e3 / bandwidth))
    assert large == pytest.approx(_ring_by_steps(1e10, 128, bandwidth, across_s))


def test_nodes_without_a_link_cannot_train_together(gpus: Cluster) -> None:
    lonely = replace(gpus, system=replace(gpus.system, inter_node=None))
    with pytest.raises(InputError, match="inter_node"):
        all_reduce_s(np.array([4e8]), np.array([16.0]), lonely)


def test_processes_on_a_cpu_fill_buckets_by_its_bandwidth_and_wait(cpus: Cluster, gpus: Cluster, stack: StackProfile) -> None:
    payload, two = np.array([4e8]), np.array([2.0])
    link = Link(kind="shared-memory", bandwidth_bytes_per_s=1e9, latency_s=1e-4, all_reduce_bus_bandwidth_bytes_per_s=1e9)
    cluster = replace(cpus, system=replace(cpus.system, intra_node=link))
    ring_s = _ring_by_steps(4e8, 2, 1e9, 1e-4)
    buckets_s = 2 * 2 * 4e8 / cpus.device.memory_bandwidth_bytes_per_s
    found_s = exchange_s(payload, two, cluster, stack)
    assert found_s == pytest.approx(ring_s + buckets_s + 8e-3)
    assert exchange_s(payload, np.array([4.0]), cluster, stack) > found_s
    assert exchange_s(payload, np.array([1.0]), cluster, stack) == 0
    assert exchange_s(payload, two, gpus, stack) == all_reduce_s(payload, two, gpus)


def test_the_range_is_wider_where_processes_share_a_cpu(cpus: Cluster, stack: StackProfile) -> None:
    plans = [Plan(micro_batch=2), Plan(micro_batch=2, data_parallel=2)]
    alone, shared = estimate(Workload(model=MODEL), cpus, stack, plans)
    assert shared.step_s.high / shared.step_s.value > alone.step_s.high / alone.step_s.value
    assert not any("share a CPU" in note for note in alone.notes)
    assert any("share a CPU" in note for note in shared.notes)


def test_nodes_of_cpus_need_a_link_too(cpus: Cluster, stack: StackProfile) -> None:
    """Processes of one node talk through its memory, those of several over their link; to score, they need not talk."""
    workload, shared = Workload(model=MODEL), [Plan(micro_batch=1, data_parallel=2)]
    alone = estimate(workload, cpus, stack, shared)
    lonely = replace(cpus, n_nodes=2)
    with pytest.raises(InputError, match="pc has no inter_node link, so 2 of it cannot train together"):
        estimate(workload, lonely, stack, shared)
    link = Link(kind="ethernet", bandwidth_bytes_per_s=1e6)
    joined = replace(lonely, system=replace(cpus.system, inter_node=link))
    payload = 4.0 * parameter_count(MODEL)
    assert estimate(workload, joined, stack, shared).step_s[0] > payload / 1e6 > alone.step_s[0]
    score = replace(workload, task="score")
    lone = estimate(score, lonely, stack, shared)
    assert lone.step_s[0] == estimate(score, cpus, stack, [Plan(micro_batch=1)]).step_s[0]
