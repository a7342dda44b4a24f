"""Layers as graphs of kernels: what the host no longer dispatches, and what that takes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from txlplan.cost import Plans, estimate
from txlplan.errors import InputError
from txlplan.hardware import Cluster, devices, stacks, systems
from txlplan.model import models, parameter_shapes
from txlplan.plan_file import Plan
from txlplan.planner import Space, fixes, plan
from txlplan.workload import Workload

WORKLOAD = Workload(model=models.get("original-enwik8-12"), tokens=10**9, global_batch=16)
STACK = stacks.get("txlplan-cuda")
GPU = replace(systems.get("dgx-h100"), device="h200", n_devices=2)
CLUSTER = Cluster(system=GPU, device=devices.get("h200"))


def seconds(**settings: object) -> float:
    """Of a step."""
    return float(estimate(WORKLOAD, CLUSTER, STACK, [Plan(**settings)]).step_s[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_where_the_host_is_waited_for_graphs_save_what_it_would_dispatch(micro_batch: int) -> None:
    """All but what belongs to the ends of the model: a twelfth of the layers, or none, is as much as is left."""
    settings = {"micro_batch": micro_batch, "precision": "bf16"}
    eager_s, captured_s = seconds(**settings), seconds(**settings, compile=True)
    assert captured_s < 0.5 * eager_s
    fewer = replace(WORKLOAD, model=replace(WORKLOAD.model, n_layer=1))
    ends_s = float(estimate(fewer, CLUSTER, STACK, [Plan(**settings)]).step_s[0])  # type: ignore[arg-type]
    device_s = float(
        estimate(WORKLOAD, CLUSTER, replace(STACK, host_op_s=0.0, host_backward_op_s=0.0), [Plan(**settings)]).step_s[0]
    )  # type: ignore[arg-type]
    assert device_s <= captured_s <= device_s + ends_s


def test_where_the_device_is_waited_for_graphs_change_nothing() -> None:
    settings = {"micro_batch": 64, "precision": "fp32"}
    assert seconds(**settings, compile=True) == pytest.approx(seconds(**settings), rel=1e-3)


def test_where_gradients_are_added_the_graphs_have_a_memory_and_gradients_of_their_own() -> None:
    alone, added = (
        [float(value) for value in estimate(WORKLOAD, CLUSTER, STACK, _both(accumulation)).peak_memory_bytes]
        for accumulation in (1, 2)
    )
    model = WORKLOAD.model
    memory = model.n_layer * 8 * model.mem_len * model.d_model
    gradients = sum(prod(shape) for name, shape in parameter_shapes(model).items() if name.startswith("layers."))
    assert alone[0] == alone[1]
    assert added[1] - added[0] == pytest.approx(4.0 * (memory + gradients))


def _both(accumulation: int) -> list[Plan]:
    return [Plan(micro_batch=8, accumulation=accumulation, compile=how) for how in (False, True)]


@pytest.mark.parametrize("changes", [{"data_parallel": 2}, {"activation_checkpointing": "full"}])
def test_graphs_of_several_devices_or_with_checkpointing_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="graphs of layers"):
        seconds(micro_batch=4, compile=True, **changes)


def test_the_planner_weighs_them_on_one_gpu() -> None:
    one = plan(WORKLOAD, CLUSTER, STACK, space=Space(devices=(1,), micro_batch=(4,)))
    assert one.plan.compile
    two = plan(WORKLOAD, CLUSTER, STACK, space=Space(devices=(2,), micro_batch=(4,)))
    assert not two.plan.compile
    every = Space(devices=(1,)).plans(WORKLOAD, CLUSTER, STACK)
    assert isinstance(every, Plans)
    captured = every.take(np.flatnonzero(every.compile))
    assert len(captured)
    assert not captured.activation_checkpointing.any()


def test_a_choice_of_graphs_explains_its_other_settings_and_knows_fixes() -> None:
    found = plan(WORKLOAD, CLUSTER, STACK, space=Space(devices=(1,), micro_batch=(4,)), explain=True)
    assert found.plan.compile
    assert any("saves" in each.reason for each in found.rejections)
    large = Plan(micro_batch=4096, precision="bf16", compile=True)
    wanted = replace(WORKLOAD, global_batch=4096)
    assert "checkpointing" in {fix.kind.split()[-1] for fix in fixes(wanted, CLUSTER, STACK, large)}
