"""What the stages of ZeRO send, where the link between two nodes is all that matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from machine_factory import GPU

from txlplan.cost import estimate
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, Link, StackProfile, SystemProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.workload import Workload

MODEL = ModelConfig(id="m", n_layer=4, d_model=256, n_head=4, d_head=64, d_inner=1024, vocab_size=9000, tgt_len=32, mem_len=32)


def costed(gpus: Cluster, stack: StackProfile, **plan: object) -> Estimate:
    """Over 16 devices, two nodes, joined by a link that nothing can hide."""
    link = replace(gpus.system.inter_node, bandwidth_bytes_per_s=1e6, latency_s=0.0)
    slow = replace(
        gpus, system=replace(gpus.system, inter_node=link, intra_node=replace(gpus.system.intra_node, latency_s=0.0))
    )
    found = Plan(micro_batch=2, data_parallel=16, **plan)  # type: ignore[arg-type]
    (only,) = estimate(Workload(model=MODEL), slow, stack, [found])
    return only


def sent_s(found: Estimate) -> float:
    return next(term.value for term in found.terms if term.name == "all-reduce")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_stage_3_sends_half_as_many_bytes_again(gpus: Cluster, stack: StackProfile, precision: str, accumulation: int) -> None:
    """Reduce-scatter and all-gather are half an all-reduce each: stage 1 does both once a step, stage 2 scatters in every
    micro-batch, stage 3 gathers twice in every micro-batch too."""
    whole, *stages = (
        costed(gpus, stack, precision=precision, accumulation=accumulation, zero_stage=stage) for stage in range(4)
    )
    ratios = [sent_s(found) / sent_s(whole) for found in stages]
    assert ratios == pytest.approx([1.0, (accumulation + 1) / 2, 1.5 * accumulation], rel=1e-3)
    assert stages[2].tokens_per_s.value == pytest.approx(whole.tokens_per_s.value / (1.5 * accumulation), rel=0.02)


def test_stage_3_holds_two_layers_beside_its_shard(gpus: Cluster, stack: StackProfile) -> None:
    """In fp32 as they are kept, under autocast with their fp16 copies."""
    held = {
        precision: {term.name: term.value for term in costed(gpus, stack, precision=precision, zero_stage=3).part("memory")}[
            "parameters"
        ]
        for precision in ("fp32", "fp16")
    }
    shard = costed(gpus, stack, precision="fp32", zero_stage=0).part("memory")
    whole = next(term.value for term in shard if term.name == "parameters")
    gathered = {precision: bytes_ - whole / 16 for precision, bytes_ in held.items()}
    assert gathered["fp16"] == pytest.approx(1.5 * gathered["fp32"])


NODE = Link(kind="nvswitch2", bandwidth_bytes_per_s=1e18, latency_s=0.0)
BOX = SystemProfile(id="box", name="Box", kind="server", device="gpu", n_devices=8, intra_node=NODE)
PLAIN = StackProfile(id="plain", family="txlplan", version="0")


def over(bandwidth_bytes_per_s: float) -> Cluster:
    """Eight nodes."""
    link = Link(kind="infiniband", bandwidth_bytes_per_s=bandwidth_bytes_per_s, latency_s=0.0)
    return Cluster(system=replace(BOX, inter_node=link), device=GPU, n_nodes=8)


@given(
    bandwidth=st.floats(1e8, 1e12),
    overlap=st.floats(0, 1),
    accumulation=st.sampled_from([1, 4]),
    zero=st.sampled_from([0, 1, 2, 3]),
    sync=st.sampled_from(["step", "micro-batch"]),
)
@settings(max_examples=60, deadline=None)
def test_a_region_hides_what_is_sent_beside_it_and_no_more_than_it_takes(
    bandwidth: float, overlap: float, accumulation: int, zero: int, sync: str
) -> None:
    """Each scatter and gather of a step beside the forward or the backward that it runs in."""
    found = Plan(micro_batch=2, data_parallel=16, accumulation=accumulation, zero_stage=zero)
    stack = replace(PLAIN, host_op_s=0.0, gradient_sync=sync)
    alone, open_, hiding = (
        estimate(Workload(model=MODEL), cluster, replace(stack, communication_overlap=share), [found])
        for cluster, share in ((over(1e18), 0.0), (over(bandwidth), 0.0), (over(bandwidth), overlap))
    )
    assert hiding.single is not None
    time = hiding.single.positions[0].time
    forward_s, backward_s = float(time.forward_s[0]), float(time.backward_s[0])
    once = accumulation if sync == "micro-batch" else 1
    beside_backward = {0: [1.0] * once, 1: [1.0] * once, 2: [0.5] * accumulation, 3: [1.0] * accumulation}[zero]
    beside_forward = {0: [], 1: [], 2: [0.5], 3: [0.5] * accumulation}[zero]
    sent_s = float(open_.step_s[0] - alone.step_s[0])
    reduce_s = sent_s / (sum(beside_backward) + sum(beside_forward))
    hidden_s = sum(min(overlap * share * reduce_s, backward_s) for share in beside_backward)
    hidden_s += sum(min(overlap * share * reduce_s, forward_s) for share in beside_forward)
    assert float(hiding.step_s[0]) == pytest.approx(float(open_.step_s[0]) - hidden_s, rel=1e-6)
    event("a region is shorter than what it could hide" if overlap * reduce_s > backward_s else "all is hidden that may be")


@pytest.mark.no_cover
@given(
    bandwidth=st.floats(1e7, 1e12),
    overlap=st.sampled_from([0.0, 0.5, 1.0]),
    unattributed=st.sampled_from([-0.3, 0.0, 0.5]),
    accumulation=st.sampled_from([1, 2, 6]),
    mesh=st.sampled_from([(16, 1), (16, 2), (16, 3), (16, 4)]),
    zero=st.sampled_from([0, 1, 2, 3]),
    vocabulary=st.sampled_from([100, 9_000, 60_000]),
    micro_batch=st.sampled_from([1, 8]),
)
@settings(max_examples=150, deadline=None)
def test_neither_checkpointing_nor_a_slower_device_makes_a_step_shorter(
    bandwidth: float,
    overlap: float,
    unattributed: float,
    accumulation: int,
    mesh: tuple[int, int],
    zero: int,
    vocabulary: int,
    micro_batch: int,
) -> None:
    """Whatever is hidden, and whichever stage of a pipeline becomes the slowest: the search cuts by it."""
    workload, cluster = Workload(model=replace(MODEL, n_layer=6, vocab_size=vocabulary)), over(bandwidth)
    stack = replace(PLAIN, communication_overlap=overlap, unattributed=unattributed, host_op_s=0.0)
    plain = Plan(
        micro_batch=micro_batch,
        accumulation=accumulation,
        data_parallel=mesh[0],
        pipeline_parallel=mesh[1],
        zero_stage=zero,
    )
    kinds = ("attention", "feed-forward", "full")
    again = [
        replace(plain, activation_checkpointing=kind, checkpointed_layers=layers or None)
        for kind in kinds
        for layers in range(-(-6 // mesh[1]) + 1)
    ]
    steps_s = estimate(workload, cluster, stack, [plain, *again]).step_s
    assert (steps_s[1:] >= steps_s[0]).all()
    slow = replace(GPU, peak_flops_per_s={name: peak / 1.3 for name, peak in GPU.peak_flops_per_s.items()})
    slower = estimate(workload, replace(cluster, device=slow), stack, [plain])
    assert slower.step_s[0] >= steps_s[0] * (1 - 1e-12)
