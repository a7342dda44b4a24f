"""Products between measured shapes: points exactly, the law that made them found again, few rows apart from many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.cost import Settings, build
from txlplan.cost._efficiency import EfficiencyModel
from txlplan.cost._products import interpolated
from txlplan.cost._time import step_time
from txlplan.hardware import DeviceProfile, EfficiencyPoint, StackProfile
from txlplan.model import models as presets
from txlplan.workload import Optimization

_SIZES = st.integers(16, 2048)
_SHAPES = st.lists(st.tuples(_SIZES, _SIZES, _SIZES), min_size=1, max_size=12, unique=True)
_GRID = [(m, n, k) for m in (64, 512, 2048) for n in (128, 768) for k in (64, 512)]


def point(m: int, n: int, k: int, share: float, **changes: object) -> EfficiencyPoint:
    fields = {"kind": "gemm", "dtype": "fp32", "work": 2.0 * m * n * k, "utilisation": share, "m": m, "n": n, "k": k} | changes
    return EfficiencyPoint(**fields)  # type: ignore[arg-type]


def share_of(points: list[EfficiencyPoint], m: float, n: float, k: float) -> float:
    one = [np.array([size]) for size in (2 * m * n * k, m, n, k)]
    return float(interpolated(tuple(points), *one)[0])


@settings(max_examples=60, deadline=None)
@given(shapes=_SHAPES, data=st.data())
def test_points_come_back_exactly_and_nothing_is_free(shapes, data):
    points = [point(*shape, data.draw(st.floats(0.05, 1.0))) for shape in shapes]
    for each in points:
        assert share_of(points, each.m, each.n, each.k) == pytest.approx(each.utilisation, rel=1e-6)
    elsewhere = share_of(points, *data.draw(st.tuples(_SIZES, _SIZES, _SIZES)))
    assert 0 < elsewhere < np.inf


@pytest.mark.parametrize("shape", [(128, 256, 128), (1024, 1024, 1024), (4096, 256, 512)])
def test_a_law_of_calls_traffic_and_arithmetic_is_found_again(shape):
    def cost(m: float, n: float, k: float) -> float:
        return 5e4 + 8.0 * (m * n + m * k) + 30.0 * n * k + 2.2 * m * n * k

    points = [point(*each, 2.0 * np.prod(each) / cost(*each)) for each in _GRID]
    assert share_of(points, *shape) == pytest.approx(2.0 * np.prod(shape) / cost(*shape), rel=1e-3)


@pytest.mark.parametrize("rows", [(1, 4, 16), (1,)])
def test_points_of_one_row_do_not_split_a_law_that_they_cannot_tell_apart(rows):
    """Moving n·k is as arithmetic where m is 1; with other rows the law is found for those between."""

    def cost(m: float, n: float, k: float) -> float:
        return 2e4 + 3.0 * n * k + 2.0 * m * n * k

    points = [
        point(m, n, k, 2.0 * m * n * k / cost(m, n, k)) for m in rows for n, k in ((128, 64), (512, 32), (256, 256), (64, 700))
    ]
    wanted = {(1, 4, 16): 2.0 * 8 * 400 * 48 / cost(8, 400, 48), (1,): 2.0 * 400 * 48 / cost(1, 400, 48)}[rows]
    assert share_of(points, 8 if len(rows) > 1 else 1, 400, 48) == pytest.approx(wanted, rel=0.02)


def test_few_rows_are_predicted_by_few_rows(cpu: DeviceProfile, measured_stack: StackProfile):
    few = [point(m, 512, 512, 0.01 * m) for m in (1, 4, 16)]
    stack = replace(measured_stack, efficiency=(*measured_stack.efficiency, *few))
    model, size = EfficiencyModel(cpu, stack), np.array([512.0])
    work = 2 * 512.0 * 512.0

    def reached(rows: float) -> float:
        return float(model.utilisation("gemm", "fp32", work * np.array([rows]), np.array([rows]), size, size).share[0])

    assert reached(4.0) == pytest.approx(0.04)
    assert 0.04 < reached(8.0) < 0.16
    without = EfficiencyModel(cpu, measured_stack)
    same = without.utilisation("gemm", "fp32", work * np.array([64.0]), np.array([64.0]), size, size)
    assert reached(64.0) == pytest.approx(float(same.share[0]))


def test_forward_and_backward_take_points_of_their_own(cpu: DeviceProfile, measured_stack: StackProfile):
    shape = (256, 256, 256)
    points = (point(*shape, 0.8, phase="forward"), point(*shape, 0.1, phase="backward"))
    stack, one = replace(measured_stack, efficiency=points), np.array([256.0])
    model = EfficiencyModel(cpu, stack)
    found = {
        phase: float(model.utilisation("gemm", "fp32", 2 * one**3, one, one, one, phase).share[0])
        for phase in ("forward", "backward")
    }
    assert found == pytest.approx({"forward": 0.8, "backward": 0.1})


def test_reading_is_dispatched_as_measured_for_reading(cpu: DeviceProfile, measured_stack: StackProfile):
    model = presets.get("demo-bytes")
    stack = replace(measured_stack, host_reading_op_s=2e-6)
    for task, forward_s in (("train", 5e-6), ("score", 2e-6), ("generate", 2e-6)):
        settings_ = Settings(model=model, task=task, optimization=Optimization(), implementation="fast")
        assert step_time(build(settings_, np.ones(1)), cpu, stack).dispatch_s["forward"] == forward_s


def test_generating_draws_a_word_for_every_row():
    model = presets.get("demo-bytes")
    streams = {
        task: build(Settings(model=model, task=task, optimization=Optimization(), implementation="fast"), np.array([3.0]))
        for task in ("score", "generate")
    }
    drawn = [row for row, kind in enumerate(streams["generate"].kinds) if kind == "sampling"]
    assert len(drawn) == 1
    assert streams["generate"].bytes_moved[drawn[0], 0] == (4 + 8) * 3 * model.vocab_size
    assert streams["generate"].launches[drawn[0], 0] == 6
    assert "sampling" not in streams["score"].kinds
