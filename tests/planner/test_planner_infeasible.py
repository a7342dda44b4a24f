"""What fits no device: the term that overflows, and changes that fit."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from small_box import CLUSTER, MODEL, STACK, SYSTEM, with_memory

from txlplan.choices import Task
from txlplan.cost import estimate
from txlplan.errors import NoPlanFitsError
from txlplan.model import models
from txlplan.plan_file import Plan
from txlplan.planner import Candidate, Space, plan
from txlplan.planner._infeasible import fixes
from txlplan.workload import MOST_SEQUENCES, Workload


def test_a_batch_whose_memory_alone_exceeds_every_device_is_refused_at_once() -> None:
    """Its divisors are one question, since recurrent memory depends on micro-batch × accumulation alone."""
    workload = Workload(model=MODEL, global_batch=MOST_SEQUENCES)
    with pytest.raises(NoPlanFitsError, match="the term that overflows is recurrent memory") as caught:
        plan(workload, CLUSTER, STACK)
    assert len(Space().plain(workload, CLUSTER, STACK)) < 10_000
    batch = int(re.search(r"global_batch (\d+)", str(caught.value.hint))[1])  # type: ignore[index]
    assert plan(Workload(model=MODEL, global_batch=batch), CLUSTER, STACK, simplify=False).estimate.fits
    alone = replace(CLUSTER, system=replace(SYSTEM, n_devices=1))
    space = Space(precision=("fp32",), offload=("none",))
    assert {one.micro_batch for one in space.plain(workload, alone, STACK)} == {1}
    assert len({one.micro_batch for one in space.plain(replace(workload, global_batch=10**4), alone, STACK)}) == 25


def test_the_large_model_in_fp32_on_a_small_v100_is_refused_with_three_fixes_that_work() -> None:
    target = Candidate.of("dgx-1", n_devices=1, stack="nvidia-20.06-eager")
    workload = Workload(model=models.get("nvidia-wt103-large"), global_batch=4, memory_headroom=0.0)
    space = Space(precision=("fp32",), micro_batch=(4,), activation_checkpointing=("none",), offload=("none",))
    with pytest.raises(NoPlanFitsError, match="the term that overflows is saved activations") as caught:
        plan(workload, target.cluster, target.stack, space=space)
    assert str(caught.value.hint).count("; or ") == 2
    refused = Plan(micro_batch=4)
    assert not estimate(workload, target.cluster, target.stack, [refused])[0].fits
    found = fixes(workload, target.cluster, target.stack, refused)
    assert len({fix.kind for fix in found}) == 3
    for fix in found:
        assert fix.estimate.fits
        if fix.kind != "device":
            assert estimate(workload, target.cluster, target.stack, [fix.plan])[0].fits


@pytest.mark.parametrize(
    ("space", "change"),
    [
        (
            Space(
                micro_batch=(256,), activation_checkpointing=("none",), data_parallel=(1,), precision=("fp32",), runnable=True
            ),
            "micro_batch",
        ),
        (Space(micro_batch=(1,), data_parallel=(1,), precision=("fp32",), runnable=True), "holds that plan"),
    ],
)
def test_infeasible_names_the_term_and_a_verified_change(space: Space, change: str) -> None:
    batch = space.micro_batch[0] if space.micro_batch else 1
    memory = 400 * 2**20 if batch > 1 else 250 * 2**20
    with pytest.raises(NoPlanFitsError) as error:
        plan(Workload(model=MODEL, global_batch=batch), with_memory(memory), STACK, space=space)
    assert "the term that overflows is" in error.value.message
    assert "too many" in error.value.message
    assert error.value.hint is not None
    assert change in error.value.hint


def test_a_suggested_micro_batch_fits() -> None:
    cluster = with_memory(400 * 2**20)
    stuck = Space(
        micro_batch=(256,), activation_checkpointing=("none",), data_parallel=(1,), precision=("fp32",), runnable=True
    )
    with pytest.raises(NoPlanFitsError) as error:
        plan(Workload(model=MODEL, global_batch=256), cluster, STACK, space=stuck)
    assert error.value.hint is not None
    size = int(error.value.hint.split("micro_batch ")[1].split()[0])
    wider = replace(stuck, micro_batch=(size,))
    assert plan(Workload(model=MODEL, global_batch=256), cluster, STACK, space=wider).estimate.fits
    next_larger = min(number for number in range(size + 1, 257) if 256 % number == 0)
    with pytest.raises(NoPlanFitsError):
        plan(Workload(model=MODEL, global_batch=256), cluster, STACK, space=replace(stuck, micro_batch=(next_larger,)))


def test_a_suggested_global_batch_is_the_largest_that_fits() -> None:
    cluster = with_memory(400 * 2**20)
    with pytest.raises(NoPlanFitsError) as error:
        plan(Workload(model=MODEL, global_batch=2**20), cluster, STACK)
    assert error.value.hint is not None
    found = re.fullmatch(r"global_batch (\d+) with micro_batch 1 and accumulation (\d+) fits: .*", error.value.hint)
    assert found is not None
    batch, accumulation = int(found[1]), int(found[2])
    devices = batch // accumulation
    assert plan(Workload(model=MODEL, global_batch=batch), cluster, STACK).estimate.fits
    largest = Space(micro_batch=(1,), data_parallel=(devices,), activation_checkpointing=("full",))
    with pytest.raises(NoPlanFitsError):
        plan(Workload(model=MODEL, global_batch=batch + devices), cluster, STACK, space=largest)


@pytest.mark.parametrize("task", ["train", "score"])
def test_fixes_of_a_huge_micro_batch_are_found_at_once(task: Task) -> None:
    """By halves: the largest that fits, and one more does not."""
    cluster, size = with_memory(400 * 2**20), MOST_SEQUENCES
    workload = Workload(model=MODEL, task=task, global_batch=size)
    refused = Plan(micro_batch=size, precision="fp32")
    started = time.process_time()
    found = {fix.kind: fix for fix in fixes(workload, cluster, STACK, refused)}
    assert time.process_time() - started < 5
    if task == "train":
        assert "batch" in found
        return
    fits = found["batch"].plan.micro_batch
    free = replace(workload, global_batch=None)
    one, more = estimate(free, cluster, STACK, [Plan(micro_batch=fits), Plan(micro_batch=fits + 1)]).fits
    assert one
    assert not more
