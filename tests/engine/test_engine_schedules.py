from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.choices import Schedule
from txlplan.engine.schedules import factor
from txlplan.workload import Optimization

NAMES = get_args(Schedule)


@st.composite
def settings_and_steps(draw):
    total = draw(st.integers(1, 500))
    settings = Optimization(
        learning_rate=1e-3,
        min_learning_rate=draw(st.floats(0, 1e-3)),
        schedule=draw(st.sampled_from(NAMES)),
        warmup_steps=draw(st.integers(0, total + 10)),
        decay_rate=draw(st.floats(0.1, 1)),
        cycle_steps=draw(st.integers(1, 100)),
    )
    return settings, total, draw(st.integers(0, total + 50))


@given(settings_and_steps())
def test_factor_is_between_floor_and_one(case):
    settings, total, step = case
    value = factor(settings, step, total)
    assert 0 < value <= 1 or value == settings.min_learning_rate == 0
    if step >= settings.warmup_steps:
        assert value >= settings.min_learning_rate / settings.learning_rate - 1e-12


@given(settings_and_steps())
def test_warmup_is_linear_and_meets_the_schedule_at_one(case):
    settings, total, _ = case
    warmup = settings.warmup_steps
    assert [factor(settings, step, total) for step in range(warmup)] == [(step + 1) / warmup for step in range(warmup)]
    assert factor(settings, warmup, max(total, warmup + 1)) == pytest.approx(1)


@given(settings_and_steps())
def test_after_warmup_all_but_cyclic_never_rise(case):
    settings, total, _ = case
    if settings.schedule == "cyclic":
        return
    values = [factor(settings, step, total) for step in range(settings.warmup_steps, total + 5)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(values))


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("constant", 70, 1.0),
        ("linear", 60, 0.1 + 0.9 * 0.5),
        ("linear", 110, 0.1),
        ("cosine", 60, 0.1 + 0.9 * 0.5),
        ("cosine", 35, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))),
        ("cosine", 500, 0.1),
        ("inverse-sqrt", 40, 0.5),
        ("exponential", 30, 0.5),
        ("exponential", 50, 0.25),
        ("cyclic", 20, 0.1),
        ("cyclic", 30, 1.0),
        ("cyclic", 15, 0.55),
    ],
)
def test_values(name, step, expected):
    settings = Optimization(learning_rate=1.0, min_learning_rate=0.1, schedule=name, warmup_steps=10, cycle_steps=20)
    assert factor(settings, step, 110) == pytest.approx(expected)


def test_no_torch_is_needed():
    code = (
        "import sys, txlplan.engine.schedules, txlplan.engine.support, txlplan.engine.events; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
