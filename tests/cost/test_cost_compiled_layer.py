"""Attention by code of our own: what a call was measured to take is what a layer of that shape is said to take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine_factory import PC

from txlplan.cost._build import Settings, build
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
