"""Attention by code of our own: what a call was measured to take is what a layer of that shape is said to take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine_factory import PC

from txlplan.cost._build import Settings, build
from txlplan.cost._op_stream import OpStream
from txlplan.cost._time import _op_times
from txlplan.hardware import EfficiencyPoint, StackProfile
from txlplan.model import ModelConfig
from txlplan.model._tiles import scored_blocks
from txlplan.workload import Optimization

ROWS, HEADS, QUERIES, MEMORY, WIDTH = 4, 4, 128, 128, 64
BLOCKS = scored_blocks(QUERIES, MEMORY)
SEEN = sum(queries * keys for queries, keys in BLOCKS)
PRODUCT_FLOPS = 2.0 * ROWS * HEADS * SEEN * WIDTH


def point(phase: str, products: int, seconds: float) -> EfficiencyPoint:
    work, peak = products * PRODUCT_FLOPS, PC.device.peak_flops_per_s["fp32"]
    shape = {"m": QUERIES // len(BLOCKS), "n": round(SEEN / QUERIES), "k": WIDTH}
    return EfficiencyPoint(
        kind="attention",
        dtype="fp32",
        work=work,
        utilisation=work / seconds / peak,
        phase=phase,
        **shape,  # type: ignore[arg-type]
    )


def test_a_measured_call_comes_back_whole() -> None:
    model = ModelConfig(
        id="m", n_layer=1, d_model=256, n_head=HEADS, d_head=WIDTH, d_inner=512, vocab_size=256, tgt_len=QUERIES, mem_len=MEMORY
    )
    points = (point("forward", 3, 2e-3), point("backward", 6, 5e-3))
    stack = StackProfile(id="ours", family="txlplan", version="0", implementation="fast", efficiency=points)
    settings = Settings(model=model, optimization=Optimization(), implementation="fast", own_attention=True)
    stream = build(settings, np.array([float(ROWS)]))
    ((seconds, _, _),) = _op_times([stream], PC.device, stack, None)
    for phase, expected in (("forward", 2e-3), ("backward", 5e-3)):
        rows = [row for row, kind in enumerate(stream.kinds) if kind == "attention" and stream.phases[row] == phase]
        assert len(rows) == 2
        assert seconds[rows].sum() == pytest.approx(expected, rel=1e-6)
        assert stream.launches[rows].sum() == pytest.approx(1.0)


def own_dropout(activation: str, precision: str = "fp32", **model: float) -> OpStream:
    config = ModelConfig(
        id="m",
        n_layer=1,
        d_model=64,
        n_head=4,
        d_head=16,
        d_inner=512,
        vocab_size=256,
        tgt_len=32,
        mem_len=16,
        activation=activation,  # type: ignore[arg-type]
        **model,  # type: ignore[arg-type]
    )
    settings = Settings(
        model=config,
        optimization=Optimization(),
        precision=precision,  # type: ignore[arg-type]
        implementation="fast",
        own_attention=True,
    )
    return build(settings, np.array([float(ROWS)]))


def named(stream: OpStream, name: str) -> int:
    return stream.names.index(name)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_dropout_is_one_pass_each_way_that_keeps_no_mask(precision: str, size: int) -> None:
    stream, elements = own_dropout("gelu", precision, dropout=0.1), ROWS * 32 * 64
    there, back = named(stream, "attention dropout"), named(stream, "attention dropout backward")
    for row in (there, back):
        assert (stream.kinds[row], stream.dtypes[row]) == ("dropout", precision)
        assert stream.bytes_moved[row] == pytest.approx(2 * elements * size)
    assert stream.launches[there] == 2
    assert stream.saved_bytes[there] == 0
    assert "random" not in stream.kinds


def test_dropout_of_relu_takes_no_more_memory_than_relu_and_draws_once() -> None:
    elements = ROWS * 32 * 512
    plain, stream = own_dropout("relu"), own_dropout("relu", dropout=0.1)
    there, back = named(stream, "inner dropout"), named(stream, "inner dropout backward")
    assert "relu" not in stream.names
    assert (stream.kinds[there], stream.kinds[back]) == ("dropout", "elementwise")
    assert stream.saved_bytes[there] == plain.saved_bytes[named(plain, "relu")] == 4 * elements
    assert stream.bytes_moved[back] == 3 * 4 * elements


def test_masks_of_scores_are_drawn_both_ways_and_take_what_was_measured() -> None:
    stream, elements = own_dropout("relu", dropatt=0.1), ROWS * 4 * 32 * 48
    rows = [row for row, kind in enumerate(stream.kinds) if kind == "dropout"]
    assert [stream.names[row] for row in rows] == ["compiled mask", "compiled mask backward"]
    assert stream.bytes_moved[rows].ravel() == pytest.approx([elements, elements])
    assert {stream.dtypes[row] for row in rows} == {"int8"}
    shares = {"int8": 0.1, "fp32": 0.4}
    points = tuple(EfficiencyPoint(kind="dropout", dtype=each, work=1e5, utilisation=shares[each]) for each in shares)
    stack = StackProfile(id="ours", family="txlplan", version="0", implementation="fast", efficiency=points)
    ((seconds, _, _),) = _op_times([stream], PC.device, stack, None)
    assert seconds[rows].ravel() == pytest.approx(elements / (0.1 * PC.device.memory_bandwidth_bytes_per_s))


def test_a_scored_segment_takes_what_was_measured_without_keeping_anything() -> None:
    """Or where that was not measured, as long as one that keeps probabilities."""
    model = ModelConfig(
        id="m", n_layer=1, d_model=256, n_head=HEADS, d_head=WIDTH, d_inner=512, vocab_size=256, tgt_len=QUERIES, mem_len=MEMORY
    )
    kept, scored = point("forward", 3, 2e-3), replace(point("forward", 3, 1e-3), kind="scored attention")
    settings = Settings(model=model, task="score", optimization=Optimization(), implementation="fast", own_attention=True)
    stream = build(settings, np.array([float(ROWS)]))
    row = stream.names.index("compiled attention")
    for points, expected in (((kept, scored), 1e-3), ((kept,), 2e-3)):
        stack = StackProfile(id="ours", family="txlplan", version="0", implementation="fast", efficiency=points)
        ((seconds, _, measured),) = _op_times([stream], PC.device, stack, None)
        assert seconds[row, 0] == pytest.approx(expected, rel=1e-6)
        assert measured[row, 0] == (len(points) > 1)
