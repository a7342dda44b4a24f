"""Products between measured shapes: points exactly, the law that made them found again, few rows apart from many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.cost import Settings, build
from txlplan.cost._efficiency import EfficiencyModel
from txlplan.cost._products import interpolated
from txlplan.cost._time import layer_bytes, step_time
from txlplan.hardware import DeviceProfile, EfficiencyPoint, StackProfile, TokenHost
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


def test_what_a_token_s_operation_costs_the_host_rises_with_a_layer_s_weights(cpu: DeviceProfile, measured_stack: StackProfile):
    """Between points by their logarithm, the same beyond them and with more rows; of another precision by fp32; of segments
    and compiled tokens not at all."""
    model, one = presets.get("demo-bytes"), np.ones(1)

    def seconds(
        task: Any, precision: Any, points: tuple[TokenHost, ...], rows: float = 1.0, *, compiled: bool = False
    ) -> tuple[float, float]:
        """Of a step, and operations that it dispatches."""
        settings_ = Settings(
            model=model, task=task, optimization=Optimization(), implementation="fast", precision=precision, compiled=compiled
        )
        stream = build(settings_, rows * one)
        time = step_time(stream, cpu, replace(measured_stack, host_reading_op_s=1e-6, token_host=points))
        launches = stream.total(stream.dispatched, "forward")
        return float(time.region_s("forward", stream.total(time.op_s, "forward"), launches)[0]), float(launches[0])

    token = build(Settings(model=model, task="generate", optimization=Optimization(), implementation="fast"), one)
    width = model.n_head * model.d_head
    assert layer_bytes(token)[0] == pytest.approx(4 * (4 * width * model.d_model + 2 * model.d_model * model.d_inner))
    weights = float(layer_bytes(token)[0]) / cpu.cores
    for low, high, op_s in ((1 / 4, 4.0, 6e-6), (1 / 8, 2.0, 7e-6), (2.0, 8.0, 4e-6), (1 / 8, 1 / 2, 8e-6)):
        bounds = ((low, 4e-6), (high, 8e-6))
        points = tuple(TokenHost(dtype="fp32", layer_bytes=round(share * weights), op_s=each) for share, each in bounds)
        for rows in (1.0, 64.0):
            (without_s, launches), (with_s, _) = (seconds("generate", "fp32", each, rows) for each in ((), points))
            assert with_s - without_s == pytest.approx(launches * (op_s - 1e-6), rel=1e-3)
            compiled = [seconds("generate", "fp32", each, rows, compiled=True) for each in ((), points)]
            assert compiled[0] == compiled[1]
        assert seconds("score", "fp32", points) == seconds("score", "fp32", ())
    wide, narrow = (TokenHost(dtype=dtype, layer_bytes=1, op_s=op_s) for dtype, op_s in (("fp32", 9e-6), ("bf16", 3e-6)))
    for precision, own_s in (("fp32", 9e-6), ("bf16", 3e-6), ("fp16", 9e-6)):
        (without_s, launches), (with_s, _) = (seconds("generate", precision, each) for each in ((), (narrow, wide)))
        assert with_s - without_s == pytest.approx(launches * (own_s - 1e-6))
    assert seconds("generate", "fp16", (narrow,)) == seconds("generate", "fp16", ())


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


@pytest.mark.parametrize(
    ("kind", "dtype", "own"),
    [("gpu", "bf16", True), ("gpu", "tf32", True), ("gpu", "fp32", True), ("cpu", "bf16", False), ("tpu", "bf16", False)],
)
def test_a_gpu_s_odd_leading_dimensions_are_predicted_by_such(
    cpu: DeviceProfile, measured_stack: StackProfile, kind: Any, dtype: str, own: bool
):
    """Each by the points of its own, whatever the others reached, and measured within their work only; elsewhere by all."""
    device, whole = replace(cpu, kind=kind), [(1024, 512, 512), (4096, 512, 1024), (65536, 4096, 2048)]
    odd, shapes = [(2400, 410, 410), (4800, 2100, 410)], [*whole, (2048, 410, 512), (2048, 512, 410), (65536, 4098, 2050)]

    def found(of_whole: float, of_odd: float, *, with_odd: bool = True, of: str = "gemm") -> Any:
        points = [point(*shape, of_whole, dtype=dtype, kind=of) for shape in whole]
        points += [point(*shape, of_odd, dtype=dtype, kind=of) for shape in odd] if with_odd else []
        m, n, k = np.array(shapes, dtype=float).T
        model = EfficiencyModel(device, replace(measured_stack, efficiency=tuple(points)))
        reached = model.utilisation(of, dtype, 2 * m * n * k, m, n, k)
        return reached.share, reached.measured.tolist()

    (both, measured), (slower, _), (faster, _) = found(0.8, 0.1), found(0.8, 0.05), found(0.4, 0.1)
    alone, alone_measured = found(0.8, 0.1, with_odd=False)
    attention, _ = found(0.8, 0.1, of="bmm")
    assert both[:3] == pytest.approx(0.8)
    assert alone == pytest.approx(0.8, rel=0.1)
    assert attention[5] == pytest.approx(0.8, rel=0.1)
    if own:
        assert both[3:] == pytest.approx(faster[3:])
        assert both[3:] == pytest.approx(2 * slower[3:])
        assert measured == [True, True, True, True, True, False]
        assert alone_measured == [True, True, True, False, False, False]
        assert both[5] < 0.2
    else:
        assert both[5] == pytest.approx(0.8, rel=0.1)
        assert measured == alone_measured == [True] * 6
