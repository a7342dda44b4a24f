"""The probe on this machine, with a budget too small for good figures: their shape, their accounting, their way to disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from txlplan.config import from_plain, parse_toml, to_plain, to_toml
from txlplan.cost._efficiency import EfficiencyModel
from txlplan.detection import probe, this_machine, usable_cpus, write_profiles
from txlplan.detection._assemble import _spread
from txlplan.detection._cases import cases
from txlplan.detection._gpu_cases import gpu_cases
from txlplan.detection._host import dispatch_cost
from txlplan.detection._measure import Measurement, Timed
from txlplan.detection._probe import _dtypes
from txlplan.detection._reading import READ_BYTES
from txlplan.detection._timing import Sample
from txlplan.hardware import PRODUCTS, DeviceProfile, StackProfile, SystemProfile, devices, stacks, systems
from txlplan.nn import _suited_products
from txlplan.nn._own_code import can_compile
from txlplan.nn._suited_products import leave_to_torch
from txlplan.nn._widened import has_fast_bf16


@pytest.fixture(scope="module")
def threads_before() -> int:
    return torch.get_num_threads()


@pytest.fixture
def two_threads(threads_before):
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads_before)


@pytest.fixture(scope="module")
def result(threads_before):
    return probe(budget_s=8.0)


def test_ceilings_are_measured_and_say_so(result):
    assert result.device.provenance == "measured"
    assert result.device.peak("fp32") > 1e9
    assert result.device.memory_bandwidth_bytes_per_s > 1e8
    assert "hardware probe" in result.device.sources["peak.fp32"]


def test_the_cost_model_is_told_whether_the_engine_has_fast_products_of_bf16(result):
    """Whatever their rates, which a noisy machine may turn round."""
    assert result.device.multiplies_bf16 is has_fast_bf16()
    for told in (True, False):
        assert (
            replace(result.device, has_bf16_units=told, peak_flops_per_s={"fp32": 1e11, "bf16": 1e11}).multiplies_bf16 is told
        )


def test_no_product_beats_the_ceiling_it_defines(result):
    assert all(0 < point.utilisation <= 1.001 for point in result.stack.efficiency if point.kind in ("gemm", "linear", "bmm"))
    assert all(point.utilisation > 0 for point in result.stack.efficiency)


def test_host_time_is_that_of_an_eager_dispatch(result):
    assert 1e-7 < result.stack.host_op_s < 5e-3
    assert 1e-7 < result.stack.host_backward_op_s < 5e-3


def test_reading_dispatches_more_lightly_than_training(result):
    assert 1e-7 < result.stack.host_reading_op_s < result.stack.host_op_s * 1.5


def test_tokens_show_what_the_host_takes_for_their_operations(result):
    """In each precision that was measured and tokens are computed in, of layers that move little and much."""
    computed = {"fp32", "bf16"} if has_fast_bf16() else {"fp32"}
    assert {point.dtype for point in result.stack.token_host} <= computed
    for dtype in computed & set(result.device.peak_flops_per_s):
        points = [point for point in result.stack.token_host if point.dtype == dtype]
        assert len(points) == 3
        assert [point.layer_bytes for point in points] == sorted({point.layer_bytes for point in points})
        assert all(1e-7 < point.op_s < 5e-3 for point in points)


def test_compiled_tokens_show_what_the_host_takes_and_how_fast_is_read(result):
    """In each precision that was measured, of models that read little and much; with all threads and with one."""
    stack, wanted = result.stack, can_compile("token")
    assert (stack.meeting_s is not None) <= wanted
    measured = {"fp32", "bf16"} & set(result.device.peak_flops_per_s)
    assert {point.dtype for point in stack.compiled_token_host} == (measured if wanted else set())
    assert all(1e-7 < point.op_s < 5e-3 for point in stack.compiled_token_host)
    for threads in {1, usable_cpus()} if wanted else ():
        sizes = [point.read_bytes for point in stack.token_reading if point.threads == threads]
        assert sizes == list(READ_BYTES)
    assert all(1e7 < point.bandwidth_bytes_per_s < 1e14 for point in stack.token_reading)
    most = [point for point in stack.token_reading if point.threads == usable_cpus()][-1:]
    assert [point.bandwidth_bytes_per_s for point in most] == ([stack.reading_bandwidth_bytes_per_s] if wanted else [])


def test_bf16_is_measured_however_slow_it_is():
    try:
        rates = _dtypes("cpu", lambda: None)
    finally:
        leave_to_torch()
    assert set(rates) >= {"fp32", "bf16"}
    assert all(rate > 1e7 for each in rates.values() for rate in each.values())
    assert all(set(each) == {"forward", "backward", "weights"} for each in rates.values())


def test_the_number_of_threads_and_products_are_put_back(result, threads_before):
    assert torch.get_num_threads() == threads_before
    assert not _suited_products._in_force


def test_measured_points_come_back_exactly_from_the_cost_model(result):
    for threads in {point.threads for point in result.stack.efficiency}:
        model = EfficiencyModel(result.device, result.stack, threads)
        for point in result.stack.efficiency:
            if point.threads == threads:
                m, n, k = (np.array([float(size or 1)]) for size in (point.m, point.n, point.k))
                found = model.utilisation(point.kind, point.dtype, np.array([point.work]), m, n, k, point.phase)
                assert found.share[0] == pytest.approx(point.utilisation, rel=1e-6)
                assert found.measured[0]


@pytest.mark.parametrize(("name", "cls"), [("device", DeviceProfile), ("system", SystemProfile), ("stack", StackProfile)])
def test_profiles_survive_toml_and_json(result, name, cls):
    import tomllib

    profile = getattr(result, name)
    assert parse_toml(cls, tomllib.loads(to_toml(profile)), "test") == profile
    assert from_plain(cls, to_plain(profile), "test") == profile


def test_written_profiles_are_this_machine_s(result, home):
    device, stack, system = write_profiles(result)
    assert all(path.is_relative_to(home) for path in (device, stack, system))
    assert this_machine() == (result.system, result.device, result.stack)
    assert devices.get(result.device.id) == result.device
    assert systems.get(result.system.id).stack in stacks.paths()


def test_an_unmeasured_machine_is_derived_with_a_shipped_stack():
    system, device, stack = this_machine()
    assert (system.provenance, system.device, system.stack) == ("derived", device.id, stack.id)
    assert stack.id in ("txlplan-cpu", "txlplan-cuda")


def test_dispatch_costs_are_positive(threads_before):
    torch.set_num_threads(1)
    try:
        cost = dispatch_cost("cpu", lambda: None)
    finally:
        torch.set_num_threads(threads_before)
    assert cost.forward_s > 0
    assert cost.backward_s > 0


_VIEWS = ("view", "_unsafe_view", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "t",
          "alias", "unbind", "split", "as_strided", "empty", "empty_strided", "empty_like", "new_empty_strided")  # fmt: skip


class _Counter(TorchDispatchMode):
    """Counts operations that start a kernel."""

    def __init__(self):
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.kernels += func.overloadpacket.__name__ not in _VIEWS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "reads"),
    [
        *((kind, False) for kind in ("gemm", "bmm", "softmax", "norm", "elementwise", "copy", "gather", "loss", "optimizer")),
        *((kind, False) for kind in ("sampling", "random", *(["dropout"] if can_compile("dropout") else []))),
        *((kind, True) for kind in ("softmax", "norm", "loss", "elementwise", "copy")),
    ],
)
def test_a_case_dispatches_the_operations_that_it_counts(kind, reads):
    """Operations that start a kernel, as torch dispatches them, are those the case counts (within what is fused or split)."""
    case = next(each for each in cases("fp32") if each.kind == kind and (each.phase == "read") is reads)
    work = case.build()
    work()
    with _Counter() as counter:
        work()
    assert counter.kernels == pytest.approx(case.operations, rel=0.35)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("gemm", "fp32"), ("bmm", "fp32"), ("attention", "fp32"), ("attention", "bf16"), ("scored attention", "fp32")),
        ("linear", "bf16"),
    ],
)
def test_products_count_their_flops_as_torch_does(kind, dtype, two_threads):
    """Which leaves out packed products. Threads that do not divide the outputs of few rows add rows of zeros."""
    from torch.utils.flop_counter import FlopCounterMode, mm_flop

    def packed(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
        return int(mm_flop(x, weight[::-1]))

    for case in cases(dtype):
        if case.kind == kind and case.work < 1e8:
            with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: packed}) as counter:
                case.build()()
            assert counter.get_total_flops() == case.total


def test_what_follows_a_product_of_few_rows_is_none_of_its_time():
    few = next(case for case in cases("fp32") if case.is_apart)
    measured = Measurement(
        bandwidth_bytes_per_s=1e10,
        readings=(),
        dispatch_s=2e-6,
        plain_dispatch_s=1e-6,
        between_s=4e-6,
        timed=(),
        all_threads=1,
        unmeasured=0,
    )
    timed = Timed(case=few, threads=1, sample=Sample((few.operations * 15e-6,)))
    assert measured.rate(timed) == pytest.approx(few.work / 10e-6)


@pytest.mark.parametrize(("times_s", "told"), [((1.0,), "no repeats"), ((1.0, 1.1), "scatter of repeats (0.067)")])
def test_a_range_says_whether_operations_were_repeated(times_s, told):
    """Of those by all threads; others are timed less often."""
    case = next(iter(cases("fp32")))
    timed = [Timed(case=case, threads=2, sample=Sample(times_s)), Timed(case=case, threads=1, sample=Sample((1.0,)))]
    measured = Measurement(
        bandwidth_bytes_per_s=1e10,
        readings=(),
        dispatch_s=0.0,
        plain_dispatch_s=0.0,
        between_s=0.0,
        timed=timed,
        all_threads=2,
        unmeasured=0,
    )
    assert _spread(measured).source.startswith(told)


def test_all_cpus_are_among_the_thread_counts(result):
    assert {point.threads for point in result.stack.efficiency} <= {1, usable_cpus(), max(1, usable_cpus() // 2)}


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp16"])
def test_products_of_a_gpu_count_their_flops_as_torch_does(dtype):
    """On tensors that hold nothing, of any size."""
    from torch.utils.flop_counter import FlopCounterMode

    checked = set()
    for case in gpu_cases(dtype, "meta"):
        if case.kind in PRODUCTS:
            with FlopCounterMode(display=False) as counter:
                case.build()()
            built = case.total if (case.kind, case.phase) != ("attention", "backward") else case.total * 7 / 5
            assert counter.get_total_flops() == built, (case.kind, case.phase, case.shape)
            checked.add((case.kind, case.phase))
    both_ways = set(PRODUCTS) - {"linear", "summed", "scored attention", "token attention"}
    backward = {(kind, phase) for kind in both_ways for phase in ("forward", "backward")}
    assert checked == {*backward, ("gemm", "weights")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here")
def test_a_gpu_is_probed(home):
    result = probe(budget_s=30.0)
    assert result.device.kind == "gpu"
    assert all(0 < point.utilisation <= 1.001 for point in result.stack.efficiency if point.kind in PRODUCTS)
    assert result.stack.launch_s > 1e-7
    assert result.stack.context_bytes > 1e8
