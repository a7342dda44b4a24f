"""The op stream against the real module: equal FLOPs, and the bytes that autograd saves."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from txlplan.cost import OpStream, Settings, build
from txlplan.cost._fast_layer import TILE_DISPATCH
from txlplan.cost._op_stream import FIGURES
from txlplan.cost._template import Template, template
from txlplan.model import ModelConfig, _tiles, parameter_count
from txlplan.model import models as presets
from txlplan.nn import TransformerXL
from txlplan.nn._attention_code import has_attention_code
from txlplan.workload import Optimization

torch.set_num_threads(1)
BATCH = 3
PATHS = ("reference", "fast")


@st.composite
def models(draw: Any) -> ModelConfig:
    """Two heads and two tokens at least: with one, transposed operands are contiguous, and views are saved."""
    adaptive = draw(st.sampled_from([{}, {"cutoffs": (20, 40)}, {"cutoffs": (20, 40), "div_val": 2}]))
    return ModelConfig(
        id="drawn",
        n_layer=draw(st.integers(1, 3)),
        d_model=draw(st.sampled_from([8, 24, 32])),
        d_embed=draw(st.sampled_from([None, 16])),
        n_head=draw(st.integers(2, 3)),
        d_head=draw(st.sampled_from([4, 8])),
        d_inner=draw(st.sampled_from([16, 40])),
        vocab_size=100,
        tgt_len=draw(st.integers(2, 9)),
        mem_len=draw(st.integers(2, 12)),
        norm=draw(st.sampled_from(["pre", "post"])),
        activation=draw(st.sampled_from(["relu", "gelu"])),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        dropatt=draw(st.sampled_from([0.0, 0.1])),
        tie_weights=draw(st.booleans()),
        untie_r=draw(st.booleans()),
        **adaptive,
    )


def stream_of(model: ModelConfig, **changes: Any) -> OpStream:
    shares = (0.0,) * (model.n_clusters - 1)
    return build(Settings(model=model, optimization=Optimization(), tail_shares=shares, **changes), np.array([float(BATCH)]))


def traced(
    model: ModelConfig,
    *,
    precision: str = "fp32",
    checkpointing: str = "none",
    layers: int | None = None,
    attention: str = "reference",
) -> tuple[int, int, int]:
    """FLOPs of forward and backward, and bytes that autograd saved beside parameters and the given memory."""
    module = TransformerXL(model).train()
    module.activation_checkpointing = checkpointing  # type: ignore[assignment]
    module.checkpointed_layers = layers
    module.use_attention(attention)  # type: ignore[arg-type]
    first_cluster = model.cutoffs[0] if model.cutoffs else model.vocab_size
    tokens = torch.randint(0, first_cluster, (BATCH, model.tgt_len))
    memory = module.initial_memory(BATCH)
    excluded = {tensor.untyped_storage().data_ptr() for tensor in (memory, *module.parameters())}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in excluded:
            saved[address] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with (
        FlopCounterMode(display=False) as forward,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        autocast,
    ):
        hidden, _ = module(tokens, memory, torch.tensor(model.mem_len))
        loss = module.nll(hidden, tokens).mean()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops(), sum(size for size, _ in saved.values())


def saved_bytes(stream: OpStream) -> float:
    kept = np.maximum(stream.saved_bytes, 0.0) * stream.repeat
    mine = [
        phase == "forward" and group != "recurrent memory" for phase, group in zip(stream.phases, stream.groups, strict=True)
    ]
    return float(kept[mine].sum())


@pytest.mark.no_cover
@pytest.mark.parametrize("path", PATHS)
@given(model=models())
@settings(max_examples=15, deadline=None)
def test_flops_and_saved_bytes_are_those_of_the_module(path: str, model: ModelConfig) -> None:
    forward, backward, saved = traced(model, attention=path)
    stream = stream_of(model, implementation=path)
    assert stream.total(stream.flops, "forward") == pytest.approx(forward, rel=1e-12)
    assert stream.total(stream.flops, "backward") == pytest.approx(backward, rel=1e-12)
    assert saved_bytes(stream) == pytest.approx(saved, rel=0.02, abs=256)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("path", [*PATHS, "fused"])
@given(model=models())
@settings(max_examples=10, deadline=None)
def test_every_product_with_a_weight_has_a_gradient_of_it(path: str, precision: str, model: ModelConfig) -> None:
    """Of as many FLOPs, whichever operation leaves the gradient: their efficiency on a CPU is not that of other products."""
    stream = stream_of(model, implementation=path, precision=precision)
    flops = (stream.flops * stream.repeat).sum(axis=1)
    forward = [kind == "gemm" and phase == "forward" for kind, phase in zip(stream.kinds, stream.phases, strict=True)]
    assert flops[np.array(stream.measured_as) == "weights"].sum() == pytest.approx(flops[forward].sum(), rel=1e-12)


@pytest.mark.parametrize("adaptive", [{}, {"cutoffs": (20, 40)}, {"cutoffs": (20, 40), "div_val": 2}])
def test_a_loss_in_chunks_computes_its_logits_twice_and_keeps_none(
    tiny_model: ModelConfig, adaptive: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(tiny_model, dropout=0.0, dropatt=0.0, **adaptive)
    whole = traced(model)
    monkeypatch.setattr(_tiles, "LOGITS", 100)
    forward, backward, saved = traced(model)
    stream = stream_of(model)
    assert forward == whole[0]
    assert backward > whole[1]
    assert stream.total(stream.flops, "forward") == forward
    assert stream.total(stream.flops, "backward") == backward
    assert saved_bytes(stream) == pytest.approx(saved, rel=0.02)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["demo-bytes", "original-enwik8-12"])
def test_saved_bytes_of_presets_under_autocast(path: str, model: str) -> None:
    """Autocast's copies of matrices are saved too, where an input gradient needs them."""
    small = replace(presets.get(model), n_layer=2, tgt_len=32, mem_len=48, dropout=0.0, dropatt=0.0)
    forward, backward, saved = traced(small, precision="bf16", attention=path)
    stream = stream_of(small, precision="bf16", implementation=path)
    assert stream.total(stream.flops, "forward") == pytest.approx(forward, rel=1e-12)
    assert stream.total(stream.flops, "backward") == pytest.approx(backward, rel=1e-12)
    assert saved_bytes(stream) == pytest.approx(saved, rel=0.02, abs=256)


@pytest.mark.parametrize("path", PATHS)
def test_checkpointing_recomputes_every_layer(path: str, tiny_model: ModelConfig) -> None:
    _, backward, _ = traced(tiny_model, checkpointing="full", attention=path)
    stream = stream_of(tiny_model, checkpointing="full", implementation=path)
    assert stream.total(stream.flops, "backward") + stream.total(stream.flops, "recompute") == pytest.approx(
        backward, rel=1e-12
    )


@pytest.mark.no_cover
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["attention", "feed-forward"])
@given(model=models(), data=st.data())
@settings(max_examples=10, deadline=None)
def test_selective_checkpointing_recomputes_and_forgets_what_the_model_does(
    path: str, kind: Any, model: ModelConfig, data: Any
) -> None:
    check_selective_checkpointing(kind, model, data.draw(st.integers(1, model.n_layer)), path, {"implementation": path})


@pytest.mark.no_cover
@pytest.mark.skipif(not has_attention_code(torch.device("cpu"), torch.bfloat16), reason="needs a CPU that multiplies bf16")
@pytest.mark.parametrize("kind", ["attention", "feed-forward"])
@given(model=models(), data=st.data())
@settings(max_examples=20, deadline=None)
def test_selective_checkpointing_with_code_of_our_own_in_bf16_does_too(kind: Any, model: ModelConfig, data: Any) -> None:
    own = {"implementation": "fast", "own_attention": True, "precision": "bf16"}
    check_selective_checkpointing(kind, model, data.draw(st.integers(1, model.n_layer)), "compiled", own)


def check_selective_checkpointing(kind: Any, model: ModelConfig, layers: int, path: str, chosen: dict[str, Any]) -> None:
    """Of the first `layers` layers."""
    plan = {"attention": path, "precision": chosen.get("precision", "fp32")}
    forward, backward, saved = traced(model, **plan)
    again_forward, again_backward, again_saved = traced(model, **plan, checkpointing=kind, layers=layers)
    shares = (0.0,) * (model.n_clusters - 1)
    parts = Template(Settings(model=model, optimization=Optimization(), tail_shares=shares, **chosen))
    stream = parts.stream(np.array([float(BATCH)]))
    rows = parts.again(kind)
    assert again_forward == forward
    assert again_backward - backward == pytest.approx(layers * float(stream.flops[rows].sum()), rel=1e-12)
    forgotten = float(stream.saved_bytes[rows].sum() - parts.boundary(kind, stream)[0])
    assert saved - again_saved == pytest.approx(layers * forgotten, rel=0.02, abs=0.02 * saved / model.n_layer * layers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_what_is_kept_is_given_back(tiny_model: ModelConfig, checkpointing: str, path: str) -> None:
    stream = stream_of(tiny_model, checkpointing=checkpointing, implementation=path)
    left = stream.total(stream.saved_bytes, "forward", "recompute", "backward")
    assert left == pytest.approx(0)
    assert stream.total(stream.gradient_bytes, "backward") == pytest.approx(4 * parameter_count(tiny_model))


@pytest.mark.parametrize("path", PATHS)
def test_candidates_costed_together_are_those_costed_alone(tiny_model: ModelConfig, path: str) -> None:
    """Of the three, the loss of the last is in chunks."""
    settings = Settings(model=replace(tiny_model, vocab_size=50_000), optimization=Optimization(), implementation=path)
    sizes = [1.0, 7.0, 64.0]
    together = build(settings, np.array(sizes))
    for column, size in enumerate(sizes):
        alone = build(settings, np.array([size]))
        assert together.names == alone.names
        for figure in ("flops", "bytes_moved", "saved_bytes", "transient_bytes", "gradient_bytes", "launches", "dispatched"):
            np.testing.assert_array_equal(getattr(together, figure)[:, column], getattr(alone, figure)[:, 0], figure)


def test_operations_of_tiles_cost_the_host_less_than_those_of_modules(tiny_model: ModelConfig) -> None:
    """Only the fast path has tiles; as many as sequences here."""
    fast, reference = (stream_of(tiny_model, implementation=path) for path in ("fast", "reference"))
    in_tiles = [name.removesuffix(" backward") in ("content scores", "weighted values", "head gather") for name in fast.names]
    shares = fast.dispatched[fast.launches > 0] / fast.launches[fast.launches > 0]
    assert set(shares.round(12)) == {1.0, TILE_DISPATCH}
    np.testing.assert_array_equal(fast.dispatched[in_tiles], TILE_DISPATCH * fast.launches[in_tiles])
    np.testing.assert_array_equal(reference.dispatched, reference.launches)


def test_scoring_and_generating_keep_nothing(tiny_model: ModelConfig) -> None:
    for task in ("score", "generate"):
        stream = stream_of(tiny_model, task=task)
        assert set(stream.phases) == {"forward"}
        assert saved_bytes(stream) <= tiny_model.n_layer * BATCH * tiny_model.tgt_len * tiny_model.d_model * 4


@pytest.mark.parametrize("implementation", ["reference", "fast", "fused", "published"])
@pytest.mark.parametrize("task", ["train", "score", "generate"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_template_taken_from_a_like_one_is_what_would_be_written_down(
    tiny_model: ModelConfig, implementation: Any, task: Any, precision: Any
) -> None:
    settings = Settings(
        model=replace(tiny_model, cutoffs=(100, 200)),
        task=task,
        optimization=Optimization(optimizer="lamb"),
        precision=precision,
        implementation=implementation,
        fused_dropout=True,
        bf16_units=True,
    )
    sizes = np.array([1.0, 5.0])
    found, written = template(settings, sizes).stream(sizes), build(settings, sizes)
    assert found.dtypes == written.dtypes
    assert precision in found.dtypes
    assert found.names == written.names
    for figure in FIGURES:
        np.testing.assert_allclose(getattr(found, figure), getattr(written, figure), rtol=1e-12)
