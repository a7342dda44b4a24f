"""The fitted kernel model: what binds an operation, and how host and device overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from txlplan.cost import estimate
from txlplan.cost._kernels import kernel_s, prepare
from txlplan.cost._op_stream import Op, OpStream
from txlplan.cost._time import overlapped
from txlplan.hardware import Cluster, devices, stacks, systems
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.workload import Workload

SCORING = ModelConfig(
    id="m", n_layer=16, d_model=512, n_head=8, d_head=64, d_inner=2048, vocab_size=20000, tgt_len=64, mem_len=640
)


def product(n: int, dtype: str = "fp16") -> Op:
    return Op(
        name="p",
        group="g",
        section="s",
        kind="gemm",
        phase="forward",
        dtype=dtype,
        m=4096.0,
        n=float(n),
        k=512.0,
        flops=2.0 * 4096 * n * 512,
        bytes_moved=2.0 * (4096 * n + 4096 * 512 + n * 512),
    )


def copy() -> Op:
    return Op(name="c", group="g", section="s", kind="copy", phase="forward", dtype="fp32", bytes_moved=1e9)


def seconds(op: Op, device, stack) -> float:
    times, _ = kernel_s(prepare(OpStream.of([op], 1), device, stack), stack.kernels)
    return float(times[0, 0])


def test_an_odd_width_costs_what_the_library_makes_of_it():
    v100, early = devices.get("v100-sxm2-16gb"), stacks.get("lambda-2020-amp")
    aligned, odd = (seconds(product(n), v100, early) for n in (267736, 267735))
    assert odd > 3 * aligned
    assert seconds(product(267735), v100, stacks.get("lambda-torch1.13-apex")) < 0.6 * odd
    fp32 = [seconds(product(n, "fp32"), v100, stacks.get("lambda-torch1.13-apex")) for n in (267736, 267735)]
    assert fp32[1] == pytest.approx(fp32[0], rel=1e-3)


def test_a_larger_tensor_core_does_not_help_an_odd_width():
    a6000, stack = devices.get("rtx-a6000"), stacks.get("lambda-torch1.13-apex")
    peaks = {dtype: 8 * peak for dtype, peak in a6000.peak_flops_per_s.items()}
    larger = replace(a6000, peak_flops_per_s=peaks, memory_bandwidth_bytes_per_s=1e13, power_w=3000.0)
    even_larger = replace(larger, peak_flops_per_s={dtype: 2 * peak for dtype, peak in peaks.items()})
    assert seconds(product(267735), larger, stack) == pytest.approx(seconds(product(267735), even_larger, stack))


def test_power_binds_products_and_not_copies():
    t4, stack = devices.get("t4"), stacks.get("nvidia-20.06-eager")
    cooled = replace(t4, power_w=300.0)
    assert seconds(product(4096), t4, stack) > 1.5 * seconds(product(4096), cooled, stack)
    assert seconds(copy(), t4, stack) < 1.1 * seconds(copy(), cooled, stack)
    unknown = replace(t4, power_w=None)
    assert seconds(product(4096), unknown, stack) == seconds(product(4096), cooled, stack)


def test_host_and_device_overlap():
    device, host = np.array([1.0, 1.0, 0.0]), np.array([1e-3, 1.0, 0.0])
    assert overlapped(device, host, 4.0) == pytest.approx([1.0, 2 ** (1 / 4), 0.0])


def test_small_batches_are_bound_by_the_host_and_large_ones_by_the_device():
    dgx, t4 = systems.get("dgx-1"), systems.get("t4-server")
    plans = [Plan(micro_batch=batch, precision="fp16") for batch in (1, 2, 32)]
    steps = {}
    for system in (dgx, t4):
        for name in ("nvidia-20.06-eager", "nvidia-20.06-torchscript"):
            cluster = Cluster(system=system, device=devices.get(system.device), devices_per_node=1)
            steps[system.id, name] = estimate(Workload(model=SCORING, task="score"), cluster, stacks.get(name), plans).step_s
    eager, traced = steps["dgx-1", "nvidia-20.06-eager"], steps["dgx-1", "nvidia-20.06-torchscript"]
    assert eager[1] < 1.05 * eager[0]
    assert traced[0] == pytest.approx(0.6 * eager[0], rel=0.15)
    assert eager[0] > steps["t4-server", "nvidia-20.06-eager"][0]
    assert eager[2] < 0.5 * steps["t4-server", "nvidia-20.06-eager"][2]


def test_terms_add_up_and_more_devices_wait_for_each_other():
    dgx = systems.get("dgx-1")
    cluster = Cluster(system=dgx, device=devices.get(dgx.device))
    plans = [Plan(micro_batch=8, precision="fp16", data_parallel=ranks) for ranks in (1, 2, 8)]
    model = replace(SCORING, vocab_size=267735, tgt_len=192, mem_len=192)
    found = list(estimate(Workload(model=model), cluster, stacks.get("nvidia-20.06-eager"), plans))
    for each in found:
        assert sum(term.value for term in each.part("time")) == pytest.approx(each.step_s.value)
        assert sum(term.value for term in each.part("memory")) == pytest.approx(each.peak_memory_bytes.value)
        assert not each.extrapolated
    alone, pair, eight = (each.tokens_per_s.value / ranks for each, ranks in zip(found, (1, 2, 8), strict=True))
    assert pair < eight < alone, "a pair of a DGX-1 has one of six links"
    twice = replace(plans[2], accumulation=2)
    link = [
        next(term.value for term in each.terms if term.name == "all-reduce")
        for each in estimate(Workload(model=model), cluster, stacks.get("nvidia-20.06-eager"), [plans[2], twice])
    ]
    assert link[1] == pytest.approx(2 * link[0]), "gradients are exchanged after every micro-batch"


def test_a_device_without_fp16_units_stores_it_and_says_so():
    box = replace(systems.get("t4-server"), device="gtx-1080-ti")
    cluster = Cluster(system=box, device=devices.get("gtx-1080-ti"))
    workload = Workload(model=SCORING, task="score")
    found = estimate(workload, cluster, stacks.get("nvidia-20.06-eager"), [Plan(micro_batch=8, precision="fp16")])[0]
    assert any("has no fp16 units" in note for note in found.notes)
    assert found.extrapolated
