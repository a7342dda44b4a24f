"""The op stream of reading with kept keys and values against the real reader: FLOPs, buffers, and what compiling spares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.cost import OpStream, Settings, build
from txlplan.cost._build import COMPILED_DISPATCH
from txlplan.cost._ends import DRAWING, JOINED
from txlplan.cost._numbers import Numbers
from txlplan.cost._ring import STREAMED, compiled_calls, kept_bytes, packed_bytes, prompt_bytes
from txlplan.cost._time import step_time
from txlplan.engine.trace import trace
from txlplan.hardware import PRODUCTS, DeviceProfile, EfficiencyPoint, StackProfile, devices, stacks
from txlplan.model import ModelConfig
from txlplan.model import models as presets
from txlplan.model._tiles import SUMMED_ROWS
from txlplan.nn import Inference, TransformerXL
from txlplan.nn._products import PackedProduct
from txlplan.nn._widened import has_fast_bf16
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload

BATCH = 3


def stream_of(model: ModelConfig, task: str, batches: Sequence[int] = (BATCH,), **changes: Any) -> OpStream:
    shares = (0.0,) * (model.n_clusters - 1)
    fields: dict[str, Any] = {"task": task, "implementation": "fast", "tail_shares": shares} | changes
    return build(Settings(model=model, optimization=Optimization(), **fields), np.array(batches, dtype=float))


@st.composite
def models(draw: Any) -> ModelConfig:
    adaptive = draw(st.sampled_from([{}, {"cutoffs": (20, 40)}, {"cutoffs": (20, 40), "div_val": 2}]))
    return replace(
        presets.get("demo-bytes"),
        n_layer=draw(st.integers(1, 3)),
        d_model=24,
        n_head=draw(st.integers(1, 3)),
        d_head=8,
        d_inner=40,
        vocab_size=100,
        tgt_len=draw(st.integers(2, 9)),
        mem_len=draw(st.integers(2, 12)),
        norm=draw(st.sampled_from(["pre", "post"])),
        same_length=draw(st.booleans()),
        tie_weights=draw(st.booleans()),
        **adaptive,
    )


@pytest.mark.parametrize("task", ["score", "generate"])
@given(model=models())
@settings(max_examples=12, deadline=None)
def test_flops_are_those_of_the_reader(task: Any, model: ModelConfig) -> None:
    traced = trace(Workload(model=model, task=task), Plan(micro_batch=BATCH), [0] * (model.n_clusters - 1))
    stream = stream_of(model, task)
    assert stream.total(stream.flops, "forward") == pytest.approx(traced.forward_flops, rel=1e-12)
    assert set(stream.phases) == {"forward"}


def test_flops_of_narrow_tokens_are_those_of_the_reader(tiny_model: ModelConfig) -> None:
    """Whose keys and values are read in place."""
    traced = trace(Workload(model=tiny_model, task="generate"), Plan(micro_batch=BATCH, precision="bf16"))
    stream = stream_of(tiny_model, "generate", precision="bf16")
    assert stream.total(stream.flops, "forward") == pytest.approx(traced.forward_flops, rel=1e-12)
    assert "token attention" in stream.kinds


@pytest.mark.parametrize("longest", [1, 5])
def test_kept_bytes_are_those_of_the_buffers(tiny_model: ModelConfig, longest: int) -> None:
    reader = Inference(TransformerXL(tiny_model))
    positions = reader.distances(tiny_model.mem_len + longest)
    held = reader.ring(BATCH, longest=longest).nbytes + sum(layer.nbytes for layer in positions)
    assert kept_bytes(tiny_model, np.array([float(BATCH)]), longest, 4.0) == pytest.approx(held)


def test_a_token_costs_a_fraction_of_projecting_the_memory_again() -> None:
    model = presets.get("original-wt103-base")
    reference = stream_of(model, "generate", implementation="reference")
    kept = stream_of(model, "generate")
    assert kept.total(kept.flops, "forward") < 0.15 * reference.total(reference.flops, "forward")


def test_compiling_spares_dispatch_and_moves_what_it_moved(tiny_model: ModelConfig) -> None:
    """Of as many operations, beside its calls and what its threads wait; weights and memory are read by the products and not
    apart."""
    plain, compiled = (stream_of(tiny_model, "generate", compiled=how) for how in (False, True))
    beside = sum(op.launches * op.repeat for op in compiled_calls(np.ones(1), tiny_model.n_layer))
    assert compiled.total(compiled.launches, "forward") == plain.total(plain.launches, "forward") + beside
    assert compiled.total(compiled.dispatched, "forward") < plain.total(plain.dispatched, "forward")
    apart = plain.bytes_moved[plain.names.index("weights, keys and values")]
    moved = plain.total(plain.bytes_moved, "forward") - apart
    assert compiled.total(compiled.bytes_moved, "forward") == pytest.approx(moved)


def test_compiled_softmaxes_of_few_rows_are_dispatched_by_no_one_like_layers_and_others_are_not(
    tiny_model: ModelConfig,
) -> None:
    compiled = stream_of(tiny_model, "generate", (SUMMED_ROWS, SUMMED_ROWS + 1), compiled=True)
    for section, wanted in (("layers", [0.0, COMPILED_DISPATCH["cpu"]]), ("softmax", [0.0, 1.0])):
        rows = [
            row
            for row, name in enumerate(compiled.names)
            if compiled.sections[row] == section and name not in DRAWING and compiled.launches[row].all()
        ]
        assert rows
        for column, share in enumerate(wanted):
            shares = compiled.dispatched[rows, column] / compiled.launches[rows, column]
            np.testing.assert_allclose(shares, share)


@pytest.mark.parametrize("prompt_len", [0, 1, 2, 7, 500])
def test_a_prompt_leaves_keys_values_and_distances_of_its_own(tiny_model: ModelConfig, prompt_len: int) -> None:
    """Of as many tokens as a memory that is read a segment at a time has room for."""
    ring = Inference(TransformerXL(tiny_model)).ring(1, longest=tiny_model.tgt_len)
    room = ring.buffers[0].shape[3]
    of_a_token = ring.nbytes / room
    tokens = min(prompt_len, room) if prompt_len > 1 else 0
    seen = min(tokens, tiny_model.mem_len + tiny_model.tgt_len)
    assert prompt_bytes(tiny_model, prompt_len, 4.0) == pytest.approx(tokens * of_a_token + seen * of_a_token / 2)


def test_narrow_weights_are_not_cast_at_every_step(tiny_model: ModelConfig) -> None:
    stream = stream_of(tiny_model, "generate", precision="bf16")
    assert not [name for name in stream.names if "weight cast" in name]


@pytest.mark.skipif(not has_fast_bf16(), reason="weights are packed where torch is fast in bf16")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rows", [3, 8])
def test_copies_are_of_those_weights_that_the_reader_packs(rows: int, precision: Any) -> None:
    """Of layers and of the head, each with its own size."""
    sizes = {"n_layer": 2, "d_model": 512, "d_inner": 1024, "vocab_size": 3000, "cutoffs": (1000, 2000), "div_val": 2}
    model = replace(presets.get("demo-bytes"), **sizes)
    dtype = torch.bfloat16 if precision == "bf16" else None
    reader = Inference(TransformerXL(model), rows=rows, dtype=dtype)
    of_layers = [getattr(each.token, name) for each in reader._layers for name in ("qkv", "output", "inner", "outer")]
    products = [*of_layers, *reader._head._logits, *reader._head._narrow]
    packed = [each._packed.numel() for each in products if isinstance(each, PackedProduct)]
    numbers = Numbers(dtype=precision, compute=2.0 if dtype else 4.0)
    assert packed_bytes(model, np.array([float(rows)]), numbers)[0] == numbers.compute * sum(packed)
    assert bool(packed) is (rows >= 4 or precision == "bf16")


@pytest.mark.parametrize("task", ["train", "score", "generate"])
def test_micro_batches_costed_together_are_each_as_alone(task: Any, tiny_model: ModelConfig) -> None:
    chosen = Settings(model=tiny_model, optimization=Optimization(), task=task, implementation="fast")
    together = build(chosen, np.array([1.0, 4.0]))
    for column, size in enumerate((1.0, 4.0)):
        alone = build(chosen, np.array([size]))
        assert together.total(together.flops, *set(together.phases))[column] == alone.total(alone.flops, *set(alone.phases))[0]


@pytest.mark.parametrize(("precision", "batch", "apart"), [("fp32", 16, 1), ("fp32", 17, 0), ("bf16", 16, 0)])
def test_products_that_are_cut_for_threads_add_their_biases_apart(precision: Any, batch: int, apart: int) -> None:
    """Inner and outer ones of every layer, and the logits of every cluster."""
    model = replace(presets.get("demo-bytes"), vocab_size=100, cutoffs=(20, 40))
    launches = [
        stream.total(stream.launches, "forward")[0]
        for several in (False, True)
        for stream in [
            build(
                Settings(
                    model=model,
                    task="generate",
                    optimization=Optimization(),
                    implementation="fast",
                    precision=precision,
                    several_threads=several,
                ),
                np.array([float(batch)]),
            )
        ]
    ]
    assert launches[1] - launches[0] == apart * (2 * model.n_layer + 3)


def test_compiled_for_a_cpu_products_of_few_rows_are_sums(tiny_model: ModelConfig) -> None:
    """Of layers and logits, with as many FLOPs; of more rows they are what they were."""
    plain, compiled = (stream_of(tiny_model, "generate", compiled=how, batches=(8, 9)) for how in (False, True))
    sums = np.array([kind == "summed" for kind in compiled.kinds])
    flops = np.array([(compiled.flops * compiled.repeat)[which].sum(0) for which in (sums, ~sums)])
    total = plain.total(plain.flops, "forward")
    assert flops[0].tolist() == [total[0], 0.0]
    assert flops[1].tolist() == [0.0, total[1]]


def test_compiled_code_of_few_rows_joins_no_vocabulary_but_reads_logits_again(tiny_model: ModelConfig) -> None:
    adaptive = replace(tiny_model, vocab_size=100, cutoffs=(20, 40))
    plain, compiled = (stream_of(adaptive, "generate", compiled=how, batches=(8, 9)) for how in (False, True))
    before, after = (stream.bytes_moved[stream.names.index(JOINED)] for stream in (plain, compiled))
    assert after.tolist() == [before[0] / 2, before[1]]
    assert before[0] / 2 == 2 * 8 * adaptive.vocab_size * 4


def summed_s(model: ModelConfig, device: DeviceProfile, stack: StackProfile, threads: int, rows: int = 1) -> float:
    """Seconds of the sums of a compiled token of so many rows."""
    stream = stream_of(model, "generate", (rows,), compiled=True)
    sums = np.array([kind == "summed" for kind in stream.kinds])
    return float((step_time(stream, device, stack, threads).op_s * stream.repeat)[sums].sum())


def test_sums_take_twice_as_long_on_half_the_cores_whatever_else_was_measured(tiny_model: ModelConfig) -> None:
    stack = stacks.get("txlplan-cpu")
    cores = devices.get("generic-cpu").cores
    point = EfficiencyPoint(kind="gemm", dtype="fp32", work=1e9, utilisation=0.5, m=512, n=512, k=512, threads=cores // 2)
    probed = replace(stack, efficiency=(*stack.efficiency, point))
    whole, half = (summed_s(tiny_model, devices.get("generic-cpu"), probed, threads) for threads in (cores, cores // 2))
    assert half == pytest.approx(2 * whole)


def test_what_a_cache_does_not_hold_is_missed_by_and_by(tiny_model: ModelConfig) -> None:
    """m = 1 - exp(-m·N/C) of what is read a token: none where all fits, nearly all where it is many times the cache."""
    device, stack = devices.get("generic-cpu"), stacks.get("txlplan-cpu")
    token = stream_of(tiny_model, "generate", (2,))
    row = token.names.index("weights, keys and values")
    read_bytes = float(token.bytes_moved[row][0])

    def missed(times: float) -> float:
        smaller = replace(device, cache_bytes=math.ceil(read_bytes / times))
        return reading_s(token, smaller, stack) * device.memory_bandwidth_bytes_per_s / read_bytes

    assert missed(0.5) == missed(1.0) == 0.0
    for times in (1.01, 1.25, 2.0, 5.0):
        assert missed(times) == pytest.approx(1 - math.exp(-missed(times) * times), abs=2e-3)
        assert missed(times) > 0
    assert missed(50.0) == pytest.approx(1.0, abs=2e-3)


def test_sums_are_fed_while_they_compute_and_nothing_is_streamed_apart(tiny_model: ModelConfig) -> None:
    """Where no cache holds the weights: the root of the squares of reading them and of adding up, which take about as long."""
    large = replace(tiny_model, vocab_size=4_000_000)
    device = devices.get("generic-cpu")
    assert device.cache_bytes is not None
    weights_bytes = 4.0 * large.vocab_size * large.d_model
    assert weights_bytes > device.cache_bytes
    cached, rows = replace(device, cache_bytes=1 << 40), 5
    stack = stacks.get("txlplan-cpu")
    read, computed = (summed_s(large, each, stack, device.cores, rows) for each in (device, cached))
    token = stream_of(large, "generate", (rows,), compiled=True)
    moved = sum(
        float(token.bytes_moved[row][0] * token.repeat[row][0]) for row, kind in enumerate(token.kinds) if kind == "summed"
    )
    streamed_s = moved / device.memory_bandwidth_bytes_per_s
    assert min(streamed_s, computed) > 0.5 * max(streamed_s, computed)
    assert read == pytest.approx(math.hypot(streamed_s, computed), rel=0.02)
    faster = replace(stack, reading_bandwidth_bytes_per_s=3 * device.memory_bandwidth_bytes_per_s)
    for measured_on, times in ((device.id, 3), ("another", 1)):
        probed = replace(faster, measured_device=measured_on)
        expected = math.hypot(streamed_s / times, computed)
        assert summed_s(large, device, probed, device.cores, rows) == pytest.approx(expected, rel=0.02)
    stream = stream_of(large, "generate", (1, 9), compiled=True)
    apart = stream.names.index("weights, keys and values")
    assert stream.bytes_moved[apart][0] == 0
    assert stream.bytes_moved[apart][1] > weights_bytes


def test_what_tokens_read_comes_at_the_bandwidth_of_reading_where_that_was_measured() -> None:
    """Beside products of a CPU, whatever the cache holds of it."""
    device = replace(devices.get("generic-cpu"), cache_bytes=None)
    stack = replace(stacks.get("txlplan-cpu"), reading_bandwidth_bytes_per_s=2 * device.memory_bandwidth_bytes_per_s)
    stream = stream_of(presets.get("demo-bytes"), "generate")
    row = stream.names.index("weights, keys and values")
    for measured_on, times in ((device.id, 2), ("another", 1)):
        seconds = reading_s(stream, device, replace(stack, measured_device=measured_on))
        assert seconds == pytest.approx(stream.bytes_moved[row, 0] / device.memory_bandwidth_bytes_per_s / times)


def test_products_are_fed_while_they_compute() -> None:
    """What is read from memory takes a token longer by the root of the sum of squares with its products, less these."""
    device, stack = replace(devices.get("generic-cpu"), cache_bytes=None), stacks.get("txlplan-cpu")
    stream = stream_of(presets.get("demo-bytes"), "generate")
    op_s, row = step_time(stream, device, stack).op_s[:, 0], stream.names.index("weights, keys and values")
    computed = computing_s(stream, op_s)
    read = float(stream.bytes_moved[row, 0]) / device.memory_bandwidth_bytes_per_s
    assert computed > 0
    assert op_s[row] == pytest.approx(math.hypot(computed, read) - computed)
    for slower in (1e-3, 1e3):
        other = replace(device, memory_bandwidth_bytes_per_s=slower * device.memory_bandwidth_bytes_per_s)
        assert reading_s(stream, other, stack) == pytest.approx(read / slower, rel=1e-3)


def computing_s(stream: OpStream, op_s: Any) -> float:
    """Of all products of a token."""
    products = [kind in PRODUCTS and group != STREAMED for kind, group in zip(stream.kinds, stream.groups, strict=True)]
    return float((op_s * stream.repeat[:, 0])[products].sum())


def reading_s(stream: OpStream, device: DeviceProfile, stack: StackProfile) -> float:
    """What a token's weights, keys and values take where nothing is computed meanwhile: told from what they add to products."""
    op_s = step_time(stream, device, stack, device.cores).op_s[:, 0]
    computed = computing_s(stream, op_s)
    added = float(op_s[stream.names.index("weights, keys and values")])
    return math.sqrt(added * (added + 2 * computed))


@pytest.mark.parametrize("implementation", ["fast", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_logits_are_widened_apart_but_those_of_fp16_on_a_gpu(
    tiny_model: ModelConfig, implementation: Any, precision: Any
) -> None:
    stream = stream_of(tiny_model, "generate", precision=precision, implementation=implementation)
    itself, logits = (precision, implementation) == ("fp16", "fused"), BATCH * tiny_model.vocab_size
    assert ("cluster 0 widening" in stream.names) is (precision != "fp32" and not itself)
    assert stream.bytes_moved[stream.names.index("cluster 0 log-softmax"), 0] == logits * ((2 if itself else 4) + 4)
