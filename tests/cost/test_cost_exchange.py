"""What the stages of ZeRO send, where the link between two nodes is all that matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from txlplan.cost import estimate
from txlplan.estimates import Estimate
from txlplan.hardware import Cluster, StackProfile
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
