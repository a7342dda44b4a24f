"""A traced step: its figures by hand, and those of the op stream on drawn workloads."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_factory import PC

from txlplan.cost import Settings, account
from txlplan.cost._template import Template
from txlplan.engine.trace import Traced, trace
from txlplan.hardware import StackProfile
from txlplan.model import ModelConfig, models, parameter_count
from txlplan.nn._attention_code import has_attention_code
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload

STACK = StackProfile(id="ours", family="txlplan", version="0", implementation="fast", context_bytes=1)
FUSED = dataclasses.replace(STACK, implementation="fused")


BF16_CODE = has_attention_code(torch.device("cpu"), torch.bfloat16)


def of_code(precision: Any) -> Any:
    """One that this machine has attention code for."""
    return precision if BF16_CODE else "fp32"


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
    seen, distances = 150 * (M + 150) + 150 * (M + 300), 150 * 192 + 150 * 352
    scores = B * (2 * seen + distances) * D
    layer = 2 * (B * T * D * D + B * (M + T) * 2 * D * D + (M + T) * D * D + scores + B * T * D * D + 2 * B * T * D * F)
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


def some(draw: st.DrawFn, *values: Any) -> Any:
    return draw(st.sampled_from(values))


@st.composite
def drawn_models(draw: st.DrawFn) -> ModelConfig:
    clusters: dict[str, Any] = some(draw, {}, {"cutoffs": (200, 600)}, {"cutoffs": (200, 600), "div_val": 2})
    mem_len = some(draw, 0, 8, 16, 48)
    return ModelConfig(
        id="drawn",
        n_layer=some(draw, 1, 2, 3),
        d_model=some(draw, 64, 96),
        d_embed=some(draw, None, 48),
        n_head=some(draw, 2, 4),
        d_head=some(draw, 16, 32),
        d_inner=some(draw, 128, 256),
        vocab_size=some(draw, 1000, 3000),
        tgt_len=some(draw, 8, 16, 32),
        mem_len=mem_len,
        norm=some(draw, "pre", "post"),
        activation=some(draw, "relu", "gelu"),
        dropout=some(draw, 0.0, 0.1),
        dropatt=some(draw, 0.0, 0.1),
        tie_weights=draw(st.booleans()),
        tie_projections=(True, True, True) if clusters and draw(st.booleans()) else (),
        untie_r=draw(st.booleans()),
        clamp_len=some(draw, None, 20),
        same_length=mem_len > 0 and draw(st.booleans()),
        **clusters,
    )


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Workload, Plan]:
    task = some(draw, "train", "train", "train", "train", "score", "generate")
    training = task == "train"
    optimization = Optimization(optimizer=some(draw, "adam", "adamw", "lamb", "adafactor"), clip_norm=some(draw, None, 0.25))
    plan = Plan(
        micro_batch=some(draw, 2, 3, 4),
        accumulation=some(draw, 1, 1, 2, 3) if training else 1,
        precision=some(draw, "fp32", "bf16"),
        attention=some(draw, "fast", "reference"),
        activation_checkpointing=some(draw, "none", "none", "full") if training else "none",
    )
    return Workload(model=draw(drawn_models()), task=task, optimization=optimization), plan


@pytest.mark.no_cover
@given(asked=drawn())
@settings(max_examples=64, deadline=None)
def test_the_op_stream_is_what_the_worker_does(asked):
    assert_agreement(*asked, STACK)


@pytest.mark.no_cover
@given(asked=drawn().filter(lambda asked: asked[0].task != "generate"))
@settings(max_examples=30, deadline=None)
def test_the_op_stream_of_drawn_workloads_by_our_own_code_is_what_the_worker_does(asked):
    workload, plan = asked
    assert_agreement(workload, dataclasses.replace(plan, attention="compiled", precision=of_code(plan.precision)), STACK)


@pytest.mark.no_cover
@given(asked=drawn(), d_head=st.sampled_from([16, 20, 32]))
@settings(max_examples=40, deadline=None)
def test_the_op_stream_of_cuda_is_what_the_worker_does_with_its_fused_kernel(asked, d_head):
    workload, plan = asked
    workload = dataclasses.replace(workload, model=dataclasses.replace(workload.model, d_head=d_head))
    assert_agreement(workload, dataclasses.replace(plan, attention="fast"), FUSED)


def small(task: Any = "train", optimizer: Any = "adamw", **model: Any) -> Workload:
    sizes: dict[str, Any] = {"id": "small", "d_model": 64, "d_head": 32, "d_inner": 128, "vocab_size": 1000, "tgt_len": 16}
    return Workload(model=ModelConfig(**{**sizes, **model}), task=task, optimization=Optimization(optimizer=optimizer))


TIED = {"cutoffs": (200, 600), "div_val": 2, "tie_projections": (True, True, True)}
HELD_BY = {
    "what a segment's layer reads, while relu runs": (
        small("score", n_layer=3, n_head=2, d_inner=256, mem_len=0, cutoffs=(200, 600), norm="pre"),
        Plan(micro_batch=3),
        STACK,
    ),
    "gradients of two parts of one weight": (
        small(n_layer=1, n_head=4, d_embed=48, mem_len=8, activation="gelu", dropout=0.1, cutoffs=(200, 600), div_val=2),
        Plan(micro_batch=2, precision="bf16"),
        FUSED,
    ),
    "gradients of two parts of one weight, accumulated": (
        small(n_layer=2, d_model=96, n_head=4, d_embed=48, mem_len=16, optimizer="adafactor", **TIED),
        Plan(micro_batch=2, accumulation=3),
        FUSED,
    ),
    "the tiled backward until it ends": (
        small(n_layer=1, n_head=4, mem_len=48, norm="pre", activation="gelu", same_length=True, untie_r=False, **TIED),
        Plan(micro_batch=2, accumulation=2, precision="bf16", activation_checkpointing="full"),
        STACK,
    ),
    "the parameter that Adafactor updated before": (
        small(n_layer=1, n_head=2, d_inner=256, tgt_len=8, mem_len=48, tie_weights=False, optimizer="adafactor"),
        Plan(micro_batch=2, activation_checkpointing="full"),
        STACK,
    ),
    "a product's gradient of its input, while that of its weight is computed": (
        small(
            n_layer=3,
            d_model=96,
            n_head=2,
            d_head=16,
            d_inner=256,
            mem_len=48,
            norm="pre",
            activation="gelu",
            dropout=0.1,
            dropatt=0.1,
            optimizer="adafactor",
            **TIED,
        ),
        Plan(micro_batch=4, accumulation=2, attention="reference", activation_checkpointing="full"),
        STACK,
    ),
}
"""Workloads whose peak hangs on bytes that something holds longer than it needs them."""


@pytest.mark.no_cover
@pytest.mark.parametrize("asked", HELD_BY.values(), ids=HELD_BY)
def test_the_peak_has_what_is_held_by(asked):
    assert_agreement(*asked)


@pytest.mark.no_cover
@pytest.mark.parametrize("task", ["train", "score"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "clusters",
    [{}, {"cutoffs": (20_000, 40_000, 200_000)}, {"cutoffs": (20_000, 40_000, 200_000), "div_val": 4}],
    ids=["one", "four", "narrower"],
)
def test_the_op_stream_of_a_loss_in_chunks_is_what_the_worker_does(clusters: Any, precision: Any, task: Any) -> None:
    sizes = {"n_layer": 2, "n_head": 4, "d_model": 256, "vocab_size": 267_735, "tgt_len": 192, "mem_len": 64}
    workload = small(task, **sizes, **clusters)
    assert_agreement(workload, Plan(micro_batch=8, precision=precision), STACK)


@pytest.mark.no_cover
@pytest.mark.parametrize("how", ["none", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "dropatt"), [(1, 0.0), (2, 0.0), (2, 0.1)])
def test_the_op_stream_of_several_blocks_is_what_the_worker_does(rows: int, dropatt: float, precision: Any, how: Any) -> None:
    assert_several_blocks(rows, dropatt, precision=precision, activation_checkpointing=how)


@pytest.mark.no_cover
@pytest.mark.parametrize("how", ["none", "full"])
@pytest.mark.parametrize("precision", sorted({"fp32", of_code("bf16")}))
@pytest.mark.parametrize(("rows", "dropatt"), [(1, 0.0), (2, 0.1)])
def test_the_op_stream_of_our_own_code_is_what_the_worker_does(rows: int, dropatt: float, precision: Any, how: Any) -> None:
    assert_several_blocks(rows, dropatt, attention="compiled", precision=precision, activation_checkpointing=how)


@pytest.mark.no_cover
@pytest.mark.parametrize("precision", sorted({"fp32", of_code("bf16")}))
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("activation", "how"), [("relu", "none"), ("relu", "full"), ("gelu", "none")])
def test_the_op_stream_of_dropout_by_our_own_code_is_what_the_worker_does(
    activation: str, norm: str, precision: Any, how: Any
) -> None:
    sizes = {"n_layer": 3, "d_model": 128, "n_head": 4, "d_inner": 512, "tgt_len": 96, "mem_len": 64}
    workload = small(activation=activation, norm=norm, dropout=0.1, dropatt=0.1, **sizes)
    plan = Plan(micro_batch=4, attention="compiled", precision=precision, activation_checkpointing=how)
    assert_agreement(workload, plan, STACK)


CHECKPOINTED = [
    ("fast", "fp32", "full"),
    ("fast", "bf16", "full"),
    ("fast", "bf16", "feed-forward"),
    ("compiled", "fp32", "full"),
    ("compiled", of_code("bf16"), "full"),
    ("reference", "fp32", "full"),
    ("reference", "fp32", "attention"),
    ("reference", "bf16", "full"),
    ("reference", "bf16", "feed-forward"),
]


@pytest.mark.no_cover
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("attention", "precision", "how"), CHECKPOINTED)
def test_the_peak_of_a_small_model_that_runs_again_is_within_two_percent(
    attention: Any, precision: Any, how: Any, norm: Any
) -> None:
    """A layer's gradient waits while it runs again, and what the module holds is a large part of so little."""
    workload = small(n_layer=3, d_model=128, n_head=4, d_inner=512, vocab_size=256, tgt_len=64, mem_len=64, norm=norm)
    plan = Plan(micro_batch=16, attention=attention, precision=precision, activation_checkpointing=how)
    found, expected = trace(workload, plan), account(workload, PC, STACK, plan)
    assert expected.peak_bytes == pytest.approx(found.peak_bytes, rel=0.02), (expected, found)


def assert_several_blocks(rows: int, dropatt: float, **plan: Any) -> None:
    workload = small(n_layer=2, d_model=256, n_head=8, d_head=64, tgt_len=500, mem_len=512, dropatt=dropatt)
    assert_agreement(workload, Plan(micro_batch=rows, **plan), STACK)


@pytest.mark.parametrize("precision", sorted({"fp32", of_code("bf16")}))
def test_checkpointed_attention_of_our_own_code_runs_again_and_forgets_what_the_op_stream_says(precision):
    model = ModelConfig(
        id="m", n_layer=2, d_model=64, n_head=2, d_head=32, d_inner=128, vocab_size=300, tgt_len=150, mem_len=70, dropatt=0.1
    )
    asked = {"attention": "compiled", "precision": precision}
    plain, again = (traced(model, 2, **asked, activation_checkpointing=how) for how in ("none", "attention"))
    settings = Settings(
        model=model, optimization=Optimization(), implementation="fast", own_attention=True, precision=precision
    )
    parts = Template(settings)
    stream, rows = parts.stream(np.array([2.0])), parts.again("attention")
    assert again.backward_flops - plain.backward_flops == pytest.approx(model.n_layer * stream.flops[rows].sum())
    mask_bytes = model.tgt_len * (model.mem_len + model.tgt_len)
    forgotten = model.n_layer * stream.saved_bytes[rows].sum() - mask_bytes
    assert plain.saved_bytes - again.saved_bytes == pytest.approx(forgotten, rel=0.03)


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
