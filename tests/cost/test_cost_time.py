"""Times of operations: measured points exactly, regions, and what a faster device does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txlplan.choices import Task
from txlplan.cost import OpStream, Settings, build
from txlplan.cost._efficiency import EfficiencyModel
from txlplan.cost._time import REGIONS, StepTime, step_time
from txlplan.hardware import DeviceProfile, EfficiencyPoint, StackProfile, stacks
from txlplan.model import ModelConfig
from txlplan.workload import Optimization


def test_measured_points_come_back_exactly(cpu: DeviceProfile, measured_stack: StackProfile) -> None:
    model = EfficiencyModel(cpu, measured_stack)
    for point in measured_stack.efficiency:
        shape = (np.array([float(length or 0)]) for length in (point.m, point.n, point.k))
        reached = model.utilisation(point.kind, point.dtype, np.array([point.work]), *shape)
        assert reached.share == pytest.approx(point.utilisation, rel=1e-12)
        assert reached.measured.all()


@given(work=st.floats(1e3, 1e12))
def test_interpolation_stays_within_what_was_measured(work: float) -> None:
    points = tuple((10.0**power, 0.1 * power) for power in range(4, 9))
    stack = StackProfile(
        id="s",
        family="f",
        version="0",
        efficiency=tuple(EfficiencyPoint(kind="copy", dtype="fp32", work=w, utilisation=u) for w, u in points),
    )
    device = DeviceProfile(
        id="d",
        name="d",
        kind="cpu",
        vendor="",
        architecture="",
        memory_bytes=1,
        memory_bandwidth_bytes_per_s=1e9,
        peak_flops_per_s={"fp32": 1e9},
        cores=1,
    )
    nothing = np.zeros(1)
    reached = EfficiencyModel(device, stack).utilisation("copy", "fp32", np.array([work]), nothing, nothing, nothing)
    assert 0.4 - 1e-9 <= float(reached.share[0]) <= 0.8 + 1e-9


def test_what_reads_takes_as_long_as_it_was_timed_reading(cpu: DeviceProfile, measured_stack: StackProfile) -> None:
    """Where nothing is differentiated: by points of its own, or else by those of forward; training by others."""
    both = EfficiencyPoint(kind="softmax", dtype="fp32", work=1e6, utilisation=0.9)
    own = replace(both, utilisation=0.3, phase="read")
    gemm = EfficiencyPoint(kind="gemm", dtype="fp32", work=1e6, utilisation=0.7, phase="forward")
    one = np.array([1e6])

    def share(kind: str, phase: str | None, *points: EfficiencyPoint) -> float:
        model = EfficiencyModel(cpu, replace(measured_stack, efficiency=points))
        return float(model.utilisation(kind, "fp32", one, one, one, one, phase).share[0])

    assert share("softmax", "read", both, own, gemm) == 0.3
    assert share("softmax", "forward", both, own, gemm) == share("softmax", "backward", both, own, gemm) == 0.9
    assert share("softmax", None, both, own, gemm) == 0.9
    assert share("softmax", "read", both, gemm) == 0.9
    assert share("gemm", "read", own, gemm) == 0.7
    assert share("softmax", "forward", own, gemm) == 0.3


@pytest.mark.parametrize(("task", "read"), [("score", True), ("generate", True), ("train", False)])
def test_scoring_and_generating_read(cpu: DeviceProfile, tiny_model: ModelConfig, task: Task, read: bool) -> None:
    """Softmax of points that are timed reading is slower there, and so is what takes its points for want of own ones."""
    softmax = EfficiencyPoint(kind="softmax", dtype="fp32", work=1e6, utilisation=0.5)
    slower = replace(softmax, utilisation=0.25, phase="read")
    alike = ("softmax", "norm", "loss", "sampling")
    settings = Settings(model=tiny_model, task=task, optimization=Optimization(), implementation="fast")
    stream = build(settings, np.array([4.0]))
    stacks_of = [StackProfile(id="s", family="f", version="0", efficiency=points) for points in ((softmax,), (softmax, slower))]
    before, after = (step_time(stream, cpu, stack).op_s[:, 0] for stack in stacks_of)
    for kind, was, now in zip(stream.kinds, before, after, strict=True):
        assert now == pytest.approx(2 * was if read and kind in alike else was)


def _stream(model: ModelConfig, batch: float = 4.0) -> OpStream:
    return build(Settings(model=model, optimization=Optimization()), np.array([batch]))


def _device_s(stream: OpStream, time: StepTime, region: str) -> np.ndarray:
    return stream.total(time.op_s, *REGIONS[region])


def test_a_cpu_adds_host_and_device_and_others_overlap_them(
    cpu: DeviceProfile, gpu: DeviceProfile, measured_stack: StackProfile, tiny_model: ModelConfig
) -> None:
    """A GPU's as far as published runs show."""
    stream, kernels = _stream(tiny_model), stacks.get("nvidia-20.06-eager").kernels
    assert kernels is not None
    knee = kernels.knee
    for device in (cpu, gpu, replace(gpu, kind="tpu")):
        time = step_time(stream, device, measured_stack)
        for region, dispatch_s in (("forward", 5e-6), ("backward", 9e-6)):
            launches = stream.total(stream.dispatched, *REGIONS[region])
            device_s, host_s = _device_s(stream, time, region), launches * dispatch_s
            wanted = {
                "cpu": host_s + device_s,
                "gpu": (host_s**knee + device_s**knee) ** (1 / knee),
                "tpu": np.maximum(host_s, device_s),
            }
            assert time.region_s(region, device_s, launches) == pytest.approx(wanted[device.kind])


@pytest.mark.parametrize("field", ["peak_flops_per_s", "memory_bandwidth_bytes_per_s"])
def test_a_faster_device_is_never_slower(gpu: DeviceProfile, stack: StackProfile, tiny_model: ModelConfig, field: str) -> None:
    slower = getattr(gpu, field)
    faster = {name: 2 * peak for name, peak in slower.items()} if isinstance(slower, dict) else 2 * slower
    stream = _stream(replace(tiny_model, d_model=256, d_inner=1024), 32.0)
    before = step_time(stream, gpu, stack).op_s
    after = step_time(stream, replace(gpu, **{field: faster}), stack).op_s
    assert (after <= before * (1 + 1e-12)).all()
    assert after.sum() < before.sum()


def test_fewer_threads_are_slower(cpu: DeviceProfile, stack: StackProfile, tiny_model: ModelConfig) -> None:
    stream = _stream(tiny_model)
    one, two = (_device_s(stream, step_time(stream, cpu, stack, threads), "forward") for threads in (1, 2))
    assert one == pytest.approx(2 * two, rel=0.05)


def test_dropout_masks_take_a_cpu_the_time_to_draw_them(
    cpu: DeviceProfile, gpu: DeviceProfile, stack: StackProfile, tiny_model: ModelConfig
) -> None:
    """About 1 ns an element, beside what the mask's memory traffic takes; on a GPU nothing but that traffic."""
    dropped = _stream(replace(tiny_model, dropatt=0.1))
    numbers = tiny_model.n_layer * 4 * tiny_model.n_head * tiny_model.tgt_len * (tiny_model.tgt_len + tiny_model.mem_len)
    assert dropped.total(dropped.draws, "forward") == pytest.approx(numbers)
    plain = _stream(tiny_model)
    dropped_s, plain_s = (_device_s(stream, step_time(stream, cpu, stack), "forward") for stream in (dropped, plain))
    extra = dropped_s - plain_s
    assert numbers * 1e-9 < float(extra[0]) < numbers * 4e-9
    assert _device_s(dropped, step_time(dropped, gpu, stack), "forward") < 1e-3


def test_masks_that_a_stack_has_measured_take_what_was_measured(
    cpu: DeviceProfile, stack: StackProfile, tiny_model: ModelConfig
) -> None:
    from txlplan.hardware import EfficiencyPoint

    dropped = _stream(replace(tiny_model, dropatt=0.1))
    measured = replace(stack, efficiency=(EfficiencyPoint(kind="random", dtype="fp32", work=1e5, utilisation=0.1),))
    rows = [row for row, kind in enumerate(dropped.kinds) if kind == "random"]
    moved = dropped.bytes_moved[rows]
    assert moved == pytest.approx(9 * dropped.draws[rows])
    taken = step_time(dropped, cpu, measured).op_s[rows]
    assert taken == pytest.approx(moved / (0.1 * cpu.memory_bandwidth_bytes_per_s))
