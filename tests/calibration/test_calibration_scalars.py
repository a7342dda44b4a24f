"""Calibrating a stack to observations that another stack made: what it finds, keeps and refuses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import pytest
from record_factory import make_device, make_model, make_record

from txlplan.calibration import Observation, calibrate, enough, from_records
from txlplan.calibration._factors import TIME
from txlplan.calibration._observations import Observations, predicted
from txlplan.choices import Task
from txlplan.errors import BarMissedError, InputError
from txlplan.hardware import Cluster, CompiledTokenHost, EfficiencyPoint, StackProfile, SystemProfile, TokenHost
from txlplan.plan_file import Plan
from txlplan.workload import Workload

CLUSTER = Cluster(
    system=SystemProfile(id="local-cpu", name="PC", kind="local", device="local-cpu", n_devices=1), device=make_device()
)
STACK = StackProfile(
    id="local-cpu-stack",
    family="txlplan",
    version="0",
    measured_device="local-cpu",
    host_op_s=6e-6,
    host_backward_op_s=9e-6,
    context_bytes=300 * 2**20,
    allocator_waste=0.4,
    efficiency=(
        EfficiencyPoint(kind="gemm", dtype="fp32", work=1e8, utilisation=0.8, m=1024, n=256, k=256),
        EfficiencyPoint(kind="elementwise", dtype="fp32", work=1e6, utilisation=0.7),
    ),
)
PLANS = [(layers, width, batch) for layers in (2, 6) for width in (128, 384) for batch in (1, 16)]


def observed(truth: StackProfile, *, noise: float = 0.0, tasks: Sequence[Task] = ("train",)) -> list[Observation]:
    """What a machine that behaves as `truth` shows, disturbed by so much; tasks in turn."""
    source = random.Random(3)
    found = []
    for (layers, width, batch), task in zip(PLANS, cycle(tasks), strict=False):
        model = make_model(n_layer=layers, d_model=width, d_inner=4 * width, n_head=width // 32)
        each = Observation(
            id=f"{layers}-{width}-{batch}",
            workload=Workload(model=model, task=task),
            cluster=CLUSTER,
            plan=Plan(micro_batch=batch),
            tokens_per_s=1.0,
            peak_memory_bytes=None,
        )
        tokens, peak = predicted(each, truth)
        factor = 1 + source.uniform(-noise, noise)
        found.append(replace(each, tokens_per_s=tokens * factor, peak_memory_bytes=peak * (1 + source.uniform(-noise, noise))))
    return found


def slower(stack: StackProfile) -> StackProfile:
    """Host half as fast again, memory a quarter larger, streams at four fifths."""
    points = tuple(
        replace(point, utilisation=point.utilisation * (0.8 if point.kind == "elementwise" else 1.0))
        for point in stack.efficiency
    )
    return replace(
        stack, efficiency=points, host_op_s=9e-6, host_backward_op_s=13.5e-6, context_bytes=375 * 2**20, allocator_waste=0.6
    )


def test_what_the_truth_differs_in_is_found() -> None:
    """Products and whole steps share what streams and host do not explain alone; what is left out is predicted well."""
    result = calibrate(STACK, observed(slower(STACK)), told="8 made up")
    assert result.time.before > 0.05
    assert result.time.left_out < 0.02
    assert result.time.factors["host"] > 1.2
    assert result.time.factors["streaming"] < result.time.factors["products"]
    assert result.memory is not None
    assert result.memory.factors["context"] == pytest.approx(1.25, rel=0.05)
    assert result.memory.left_out < 0.02
    assert result.scalars == 6
    assert result.stack.host_op_s == pytest.approx(6e-6 * result.time.factors["host"])
    assert result.stack.id == STACK.id
    assert result.stack.provenance == "calibrated"
    assert "8 made up" in result.stack.sources["calibrated.host"]


def test_the_host_s_factor_moves_tokens_too() -> None:
    tokens = (TokenHost(dtype="fp32", layer_bytes=1 << 20, op_s=4e-6),)
    compiled = (CompiledTokenHost(dtype="fp32", token_bytes=1 << 20, op_s=8e-6),)
    moved = TIME["host"].apply(replace(STACK, token_host=tokens, compiled_token_host=compiled), 1.5)
    assert [point.op_s for point in moved.token_host] == pytest.approx([6e-6])
    assert [point.op_s for point in moved.compiled_token_host] == pytest.approx([12e-6])


def test_what_differs_by_task_is_found_by_task() -> None:
    truth = replace(STACK, unattributed_by_task={"train": 0.2, "generate": -0.1})
    result = calibrate(STACK, observed(truth, noise=0.02, tasks=("train", "score", "generate")), told="made up")
    factors = result.time.factors
    assert set(factors) == {"train", "score", "generate"}
    assert factors["train"] == pytest.approx(1.2, rel=0.03)
    assert factors["score"] == pytest.approx(1.0, abs=0.03)
    assert factors["generate"] == pytest.approx(0.9, rel=0.03)
    assert result.time.left_out < 0.03
    assert result.stack.unattributed == 0.0
    assert result.stack.unattributed_of("train") == pytest.approx(factors["train"] - 1, abs=1e-4)


def test_factors_move_the_less_the_more_observations_scatter() -> None:
    """About a truth that takes longer everywhere."""
    truth = replace(STACK, unattributed=0.2)
    moved = []
    for noise in (0.01, 0.15):
        runs = observed(truth, noise=noise, tasks=("train", "score", "generate"))
        moved.append(calibrate(STACK, runs, told="made up").stack.unattributed_of("train"))
    assert 0.1 < moved[1] < moved[0] == pytest.approx(0.2, abs=0.02)


def test_whole_steps_of_a_task_take_longer_by_its_own_share() -> None:
    both = replace(STACK, unattributed=0.5, unattributed_by_task={"generate": 0.1})
    for task, factor in (("train", 1.5), ("generate", 1.1)):
        plain, longer = (predicted(observed(stack, tasks=(task,))[0], stack)[0] for stack in (STACK, both))
        assert plain / longer == pytest.approx(factor)


def test_an_outlier_moves_little() -> None:
    runs = observed(slower(STACK), noise=0.01)
    spoiled = [replace(runs[0], tokens_per_s=runs[0].tokens_per_s / 3), *runs[1:]]
    clean, robust = (calibrate(STACK, each, told="made up").time.factors for each in (runs, spoiled))
    for name, factor in clean.items():
        assert robust[name] == pytest.approx(factor, rel=0.12), name


def test_a_fit_that_predicts_no_better_is_refused() -> None:
    """The stack is right already, and noise is all there is to fit."""
    with pytest.raises(BarMissedError, match="no better") as caught:
        calibrate(STACK, observed(STACK, noise=0.03), told="made up")
    assert caught.value.exit_code == 5


def test_few_observations_are_refused_with_what_was_left_aside() -> None:
    few = Observations(used=tuple(observed(STACK)[:3]), left_aside={"of another stack": 7})
    with pytest.raises(InputError, match=r"3 usable .* needs 4 .*7 of another stack"):
        enough(few, "local-cpu-stack", "a CPU")


def test_records_are_sorted_by_what_they_can_say() -> None:
    good = make_record(stack="local-cpu-stack", step_s=(0.3, 0.2, 0.2, 0.2, 0.2), warmup_steps=1, tokens_per_s=5000.0)
    records = [
        good,
        replace(good, id="again", tokens_per_s=5400.0),
        replace(good, id="third", tokens_per_s=6000.0),
        replace(good, id="failed", outcome="failed"),
        replace(good, id="foreign", stack="txlplan-cuda"),
        replace(good, id="elsewhere", device=make_device(name="another CPU")),
        replace(good, id="short", step_s=(0.3, 0.2)),
        replace(good, id="restless", step_s=(0.3, 0.1, 0.4, 0.1, 0.4, 0.2)),
    ]
    found = from_records(records, replace(CLUSTER, device=good.device), "local-cpu-stack")
    assert [each.tokens_per_s for each in found.used] == [5400.0]
    assert set(found.left_aside.values()) == {1}
    assert set(found.left_aside) == {
        "that did not end well",
        "of another stack",
        "of another device",
        "with too few steps",
        "unstable",
    }
