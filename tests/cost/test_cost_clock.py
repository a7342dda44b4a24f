"""The clock that a data sheet's power sustains, and what follows for devices that nothing was fitted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from txlplan.cost import estimate
from txlplan.cost._clock import clock_limit, clock_power_w
from txlplan.cost._time import host_speed
from txlplan.hardware import Cluster, SystemProfile, devices, stacks, systems
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.workload import Workload

BASE = ModelConfig(
    id="m", n_layer=16, d_model=512, n_head=8, d_head=64, d_inner=2048, vocab_size=20000, tgt_len=192, mem_len=192
)
STACK = stacks.get("lambda-torch1.13-apex")


def tokens_per_s(device, precision: str = "fp16", micro_batch: int = 16) -> float:
    box = SystemProfile(id="box", name="box", kind="server", device=device.id, n_devices=1)
    cluster = Cluster(system=box, device=device)
    return float(
        estimate(Workload(model=BASE), cluster, STACK, [Plan(micro_batch=micro_batch, precision=precision)]).tokens_per_s[0]
    )


def test_power_that_is_left_for_a_multiprocessor_sets_the_clock():
    t4 = devices.get("t4")
    left_w = (70 - 16 - 56e-12 * 320e9) / 40
    assert clock_power_w(t4) == pytest.approx(left_w * 1.6e9 / 1590e6)
    assert clock_power_w(replace(t4, power_w=None)) == np.inf
    assert clock_power_w(replace(t4, compute_capability="8.9")) == pytest.approx(2 * clock_power_w(t4))


def test_only_a_typical_clock_can_be_exceeded():
    assert clock_limit(devices.get("v100-sxm2-16gb")) == 1.0
    assert clock_limit(devices.get("rtx-3090")) == 1.1
    card = devices.get("rtx-3090")
    assert tokens_per_s(card) > 1.02 * tokens_per_s(replace(card, clock_is_typical=False))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_generations_come_in_their_order(precision):
    names = ("h100-sxm5-80gb", "a100-sxm4-80gb", "v100-sxm2-32gb", "t4")
    speeds = [
        tokens_per_s(devices.get(name), "tf32" if precision == "fp32" and name[0] in "ha" else precision) for name in names
    ]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[2] > 2 * speeds[3]


@pytest.mark.parametrize(
    "name", ["h100-sxm5-80gb", "a100-pcie-40gb", "l4", "l40s", "rtx-4090", "rtx-a4000", "t4", "gtx-1080-ti"]
)
def test_a_better_part_is_not_slower(name):
    device = devices.get(name)
    speed = tokens_per_s(device)
    assert tokens_per_s(replace(device, power_w=1.3 * device.power_w)) >= speed
    assert (
        tokens_per_s(replace(device, memory_bandwidth_bytes_per_s=1.05 * device.memory_bandwidth_bytes_per_s)) >= 0.995 * speed
    )
    more = replace(
        device, cores=2 * device.cores, peak_flops_per_s={d: 2 * peak for d, peak in device.peak_flops_per_s.items()}
    )
    assert tokens_per_s(more) >= 0.95 * speed, "the same power for twice as many: half the clock, and waves less full"


def test_faster_memory_helps_less_than_in_proportion():
    """Strided scores ask for instructions too, and these run no faster."""
    device = devices.get("a100-sxm4-40gb")
    twice = replace(device, memory_bandwidth_bytes_per_s=2 * device.memory_bandwidth_bytes_per_s, power_w=None)
    assert 1.1 < tokens_per_s(twice, micro_batch=64) / tokens_per_s(replace(device, power_w=None), micro_batch=64) < 1.7


def test_a_host_of_many_busy_processes_is_slower():
    dgx = systems.get("dgx-1")
    whole = Cluster(system=dgx, device=devices.get(dgx.device))
    speeds = host_speed(whole, np.array([1.0, 2.0, 8.0]))
    assert speeds == pytest.approx([0.76, 0.76 * 0.75 ** (1 / 3), 0.76 * 0.75])
    two = Cluster(system=dgx, device=devices.get(dgx.device), n_nodes=4, devices_per_node=2)
    assert host_speed(two, np.array([8.0])) == pytest.approx([speeds[1]]), "processes of other nodes do not count"
    plans = [Plan(micro_batch=1, precision="fp16", data_parallel=ranks) for ranks in (1, 8)]
    replicas = replace(STACK, gradient_sync="none")
    alone, crowded = estimate(Workload(model=BASE), whole, replicas, plans).step_s
    assert 1.2 < crowded / alone < 1 / 0.75 + 0.01
