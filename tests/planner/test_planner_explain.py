"""Why every other value of a setting was not chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_box import CLUSTER, MODEL, STACK, WIDE_CLUSTER, with_memory

from txlplan.choices import Objective
from txlplan.cost import estimate
from txlplan.plan_file import Plan
from txlplan.planner import Space, plan
from txlplan.workload import Workload


def test_explain_says_why_not() -> None:
    cluster = with_memory(340 * 2**20)
    found = plan(Workload(model=MODEL, global_batch=64), cluster, STACK, explain=True)
    said = {(rejection.setting, rejection.value): rejection for rejection in found.rejections}
    assert said[("tensor_parallel", 4)].behind is not None
    assert all(rejection.reason for rejection in found.rejections)
    assert all(getattr(found.plan, rejection.setting) != rejection.value for rejection in found.rejections)


@pytest.mark.parametrize("objective", ["fastest", "least-energy"])
def test_every_reason_tells_two_plans_apart(objective: Objective) -> None:
    """What is no worse is not said to be, and no figure is set against itself."""
    found = plan(Workload(model=MODEL, global_batch=64, objective=objective), WIDE_CLUSTER, STACK, explain=True)
    assert found.rejections
    for one in found.rejections:
        if one.behind is not None and abs(one.behind) < 0.0005:
            assert "as good" in one.reason, one
        elif one.behind is not None:
            assert ("better by its figures" in one.reason) == (one.behind < 0), one
        if " for the same tokens, not " in one.reason:
            takes, _, instead = one.reason.partition(" for the same tokens, not ")
            assert takes.partition(": ")[2] != instead.partition(" (")[0], one


def test_a_value_that_fits_with_checkpointing_is_not_called_out() -> None:
    """fp32 with all of the batch at once fits where layers run again, and no other way."""
    space = Space(micro_batch=(64, 32), data_parallel=(1,), runnable=True, precision=("fp32",), checkpointed_layers=(0,))
    space = replace(space, activation_checkpointing=("none", "full"))
    model = replace(MODEL, tgt_len=256)  # so that layers which run again cost more than gradients that are added
    workload, stack = Workload(model=model, global_batch=64), replace(STACK, host_op_s=0.0, launch_s=0.0)
    plans = [Plan(micro_batch=64), Plan(micro_batch=64, activation_checkpointing="full"), Plan(micro_batch=32, accumulation=2)]
    large, full, small = estimate(workload, CLUSTER, stack, plans).peak_memory_bytes
    assert max(full, small) < large
    cluster = with_memory(int((max(full, small) + large) / 2 / 0.95))
    found = plan(workload, cluster, stack, space=space, explain=True)
    assert found.plan.micro_batch == 32
    said = next(one for one in found.rejections if (one.setting, one.value) == ("micro_batch", 64))
    assert said.behind is not None
    assert "activation_checkpointing" in said.reason
    within = replace(space, activation_checkpointing=("none",))
    out = plan(workload, cluster, stack, space=within, explain=True).rejections
    said = next(one for one in out if (one.setting, one.value) == ("micro_batch", 64))
    assert said.behind is None
    assert said.reason.startswith("does not fit: ")


def test_explain_keeps_to_the_checkpointing_that_was_asked_for() -> None:
    space = Space(activation_checkpointing=("none", "full"))
    found = plan(Workload(model=MODEL, global_batch=64), CLUSTER, STACK, space=space, explain=True)
    assert {one.value for one in found.rejections if one.setting == "activation_checkpointing"} == {"full"}
