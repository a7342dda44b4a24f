"""A traced step: its figures by hand, and those of the op stream on drawn workloads."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from machine_factory import PC

from txlplan.cost import Settings, account
from txlplan.cost._template import Template
from txlplan.engine.trace import Traced, trace
from txlplan.hardware import StackProfile
from txlplan.model import ModelConfig, models, parameter_count
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload

STACK = StackProfile(id="ours", family="txlplan", version="0", implementation="fast", context_bytes=1)
FUSED = dataclasses.replace(STACK, implementation="fused")
DRAWN, DRAWN_FUSED = 64, 32


def traced(model: ModelConfig, micro_batch: int, task: Any = "train", tail_targets: Any = None, **plan: Any) -> Traced:
    return trace(Workload(model=model, task=task), Plan(micro_batch=micro_batch, **plan), tail_targets)


def test_products_counted_by_hand(tiny_model):
    """2mnk for each product: QKV over T+M keys, position, scores twice, values, output, feed-forward, logits."""
    B, T, S, D, F, V, L = 3, 8, 16, 16, 32, 256, 2
    layer = 2 * (B * S * D * 3 * D + S * D * D + 3 * B * T * S * D + B * T * D * D + 2 * B * T * D * F)
    found = traced(tiny_model, B, attention="reference")
    assert found.forward_flops == L * layer + 2 * B * T * D * V
    assert traced(tiny_model, B, "score").backward_flops == 0


def test_activation_checkpointing_recomputes_the_layers(tiny_model):
    plain, again = (traced(tiny_model, 2, attention="reference", activation_checkpointing=how) for how in ("none", "full"))
    logits = 2 * 2 * 8 * 16 * 256
    assert again.forward_flops == plain.forward_flops
    assert again.backward_flops - plain.backward_flops == pytest.approx(plain.forward_flops - logits, rel=0.1)
    assert again.saved_bytes < plain.saved_bytes


def test_the_fast_path_leaves_out_queries_of_the_memory_and_keys_that_no_query_of_a_block_sees(tiny_model):
    config = dataclasses.replace(tiny_model, tgt_len=300, mem_len=40)
    B, T, M, D, F, V, L = 3, 300, 40, 16, 32, 256, 2
    seen = 150 * (M + 150) + 150 * (M + 300)
    layer = 2 * (
        B * T * D * D + B * (M + T) * 2 * D * D + (M + T) * D * D + B * (3 * seen + T) * D + B * T * D * D + 2 * B * T * D * F
    )
    found = traced(config, B)
    assert found.forward_flops == L * layer + 2 * B * T * D * V
    assert found.forward_flops < 0.9 * traced(config, B, attention="reference").forward_flops


def test_further_clusters_are_evaluated_for_their_own_targets(tiny_model):
    config = dataclasses.replace(tiny_model, vocab_size=300, cutoffs=(100, 200), div_val=2)
    none, some = (traced(config, 2, tail_targets=sizes).forward_flops for sizes in ((0, 0), (5, 3)))
    assert some - none == 2 * 5 * 8 * (16 + 100) + 2 * 3 * 4 * (16 + 100)
    with pytest.raises(ValueError, match="2 further clusters"):
        traced(config, 2, tail_targets=[1])


def test_a_large_model_is_traced_without_its_memory():
    config = models.get("nvidia-wt103-large")
    assert traced(config, 2, "score").parameters == parameter_count(config)


def drawn_model(draw: random.Random) -> ModelConfig:
    clusters: dict[str, Any] = draw.choice([{}, {}, {"cutoffs": (200, 600)}, {"cutoffs": (200, 600), "div_val": 2}])
    tie_projections = (True, True, True) if clusters and draw.random() < 0.5 else ()
    mem_len = draw.choice([0, 8, 16, 48])
    return ModelConfig(
        id="drawn",
        n_layer=draw.choice([1, 2, 3]),
        d_model=draw.choice([64, 96]),
        d_embed=draw.choice([None, None, 48]),
        n_head=draw.choice([2, 4]),
        d_head=draw.choice([16, 32]),
        d_inner=draw.choice([128, 256]),
        vocab_size=draw.choice([1000, 3000]),
        tgt_len=draw.choice([8, 16, 32]),
        mem_len=mem_len,
        norm=draw.choice(["pre", "post"]),
        activation=draw.choice(["relu", "gelu"]),
        dropout=draw.choice([0.0, 0.1]),
        dropatt=draw.choice([0.0, 0.1]),
        tie_weights=draw.random() < 0.6,
        tie_projections=tie_projections,
        untie_r=draw.random() < 0.7,
        clamp_len=draw.choice([None, None, 20]),
        same_length=mem_len > 0 and draw.random() < 0.3,
        **clusters,
    )


def drawn(seed: int) -> tuple[Workload, Plan]:
    draw = random.Random(seed)
    task = draw.choice(["train", "train", "train", "train", "score", "generate"])
    training = task == "train"
    optimization = Optimization(
        optimizer=draw.choice(["adam", "adamw", "lamb", "adafactor"]), clip_norm=draw.choice([None, 0.25])
    )
    plan = Plan(
        micro_batch=draw.choice([2, 3, 4]),
        accumulation=draw.choice([1, 1, 2, 3]) if training else 1,
        precision=draw.choice(["fp32", "bf16"]),
        attention=draw.choice(["fast", "reference"]),
        activation_checkpointing=draw.choice(["none", "none", "full"]) if training else "none",
    )
    return Workload(model=drawn_model(draw), task=task, optimization=optimization), plan


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(DRAWN))
def test_the_op_stream_is_what_the_worker_does(seed):
    assert_agreement(*drawn(seed), STACK)


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(DRAWN, DRAWN + DRAWN_FUSED))
def test_the_op_stream_of_cuda_is_what_the_worker_does_with_its_fused_kernel(seed):
    workload, plan = drawn(seed)
    assert_agreement(workload, dataclasses.replace(plan, attention="fast"), FUSED)


def test_attention_that_is_checkpointed_on_cuda_runs_again_and_forgets_what_the_op_stream_says():
    model = ModelConfig(
        id="m", n_layer=2, d_model=64, n_head=2, d_head=32, d_inner=128, vocab_size=300, tgt_len=32, mem_len=16, dropatt=0.1
    )
    workload = Workload(model=model)
    plain, again = (
        trace(workload, Plan(micro_batch=2, activation_checkpointing=how), fused=True) for how in ("none", "attention")
    )
    parts = Template(Settings(model=model, optimization=Optimization(), implementation="fused"))
    stream, rows = parts.stream(np.array([2.0])), parts.again("attention")
    assert again.backward_flops - plain.backward_flops == model.n_layer * stream.flops[rows].sum()
    forgotten = stream.saved_bytes[rows].sum() - parts.boundary("attention", stream)[0]
    assert plain.saved_bytes - again.saved_bytes == pytest.approx(model.n_layer * forgotten, rel=0.02)


def assert_agreement(workload: Workload, plan: Plan, stack: StackProfile) -> None:
    """Of analytic and traced figures: parameters and FLOPs equal, bytes nearly."""
    rows = plan.micro_batch * (1 if workload.task == "generate" else workload.model.tgt_len)
    targets = [max(1, rows // 4)] * (workload.model.n_clusters - 1)
    found = trace(workload, plan, targets, fused=stack is FUSED)
    expected = account(workload, PC, stack, plan, [count / rows for count in targets])
    assert expected.parameters == found.parameters
    assert expected.forward_flops == pytest.approx(found.forward_flops, rel=1e-9)
    assert expected.backward_flops == pytest.approx(found.backward_flops, rel=1e-9)
    assert expected.saved_bytes == pytest.approx(found.saved_bytes, rel=0.02)
    assert expected.peak_bytes == pytest.approx(found.peak_bytes, rel=0.03), (expected, found)
