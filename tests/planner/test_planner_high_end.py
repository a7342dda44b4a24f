"""The plan that fits at the high end of the range of its memory too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine_factory import SMALL_GPU
from small_box import CLUSTER, MODEL, STACK, WIDE

from txlplan.cost import estimate
from txlplan.errors import NoPlanFitsError
from txlplan.hardware import Spread
from txlplan.planner import Candidate, Space, plan, surer_plan
from txlplan.workload import Workload


def test_the_best_plan_that_fits_at_the_high_end_of_its_memory_is_offered_beside() -> None:
    spread = Spread(time_log_sd=0.1, memory_log_sd=0.3, extrapolated_time_log_sd=0.1, source="test")
    unsure = replace(STACK, context_bytes=2**20, spread=spread)
    workload = replace(WIDE, model=replace(MODEL, d_inner=2048), tokens=10**9)
    space = Space(precision=("fp32",), offload=("none",))
    sure = plan(workload, CLUSTER, unsure, space=space)
    assert not sure.estimate.tight
    assert surer_plan(workload, CLUSTER, unsure, space, sure) is None
    peak = sure.estimate.peak_memory_bytes
    device = replace(SMALL_GPU, memory_bytes=int(1.05 * peak.value / 0.95), memory_usable_bytes=None)
    small = replace(CLUSTER, device=device)
    for runners_up in (5, 0):
        choice = plan(workload, small, unsure, space=space, runners_up=runners_up)
        assert choice.estimate.tight
        other = surer_plan(workload, small, unsure, space, choice)
        assert other is not None
        assert other.estimate.fits
        assert other.estimate.peak_memory_bytes.high <= other.estimate.capacity_bytes
        every = estimate(workload, small, unsure, space.plans(workload, small, unsure))
        high = every.peak_memory_bytes * peak.high / peak.value <= every.capacity_bytes
        assert 1 / other.estimate.tokens_per_s.value == pytest.approx((1 / every.tokens_per_s[high]).min())
        assert other.behind == pytest.approx(choice.estimate.tokens_per_s.value / other.estimate.tokens_per_s.value - 1)


@pytest.mark.parametrize("share", [0.55, 0.65, 0.75, 0.85])
def test_no_plan_that_fits_at_the_high_end_is_better_than_the_surer_one(share: float) -> None:
    """A checkpointed variant of a plan that fits, and is tight, may be the one; runners-up do not show it."""
    spread = Spread(time_log_sd=0.1, memory_log_sd=0.2, extrapolated_time_log_sd=0.1, source="test")
    stack = replace(STACK, context_bytes=2**20, spread=spread)
    workload = replace(WIDE, model=replace(MODEL, d_inner=2048))
    space = Space(precision=("fp32",), offload=("none",), zero_stage=(0,), data_parallel=(1,), micro_batch=(64, 32))
    free = plan(workload, CLUSTER, stack, space=space)
    capacity = int(share * free.estimate.peak_memory_bytes.value)
    cluster = replace(CLUSTER, device=replace(SMALL_GPU, memory_bytes=int(capacity / 0.95)))
    choice = plan(workload, cluster, stack, space=space, simplify=False)
    other = surer_plan(workload, cluster, stack, space, choice)
    plans = space.plans(workload, cluster, stack)
    every = estimate(workload, cluster, stack, plans)
    proportion = choice.estimate.peak_memory_bytes.high / choice.estimate.peak_memory_bytes.value
    sure = every.peak_memory_bytes * proportion <= every.capacity_bytes
    if not choice.estimate.tight or not sure.any():
        assert other is None
        return
    assert other is not None
    assert other.estimate.tokens_per_s.value == every.tokens_per_s[sure].max()


def test_a_surer_plan_fits_by_the_high_end_of_its_own_range() -> None:
    """What no run was measured with has a wider range than the plan that is offered."""
    target = Candidate.of("dgx-1", stack="nvidia-20.06-eager")
    model = replace(
        MODEL, n_layer=16, d_model=512, n_head=8, d_head=64, d_inner=2048, vocab_size=30_000, tgt_len=192, mem_len=192
    )
    workload, tight = Workload(model=model, global_batch=256), 0
    space = Space(data_parallel=(8,), tensor_parallel=(1,), context_parallel=(1,), pipeline_parallel=(1,), precision=("fp16",))
    for gib in np.arange(3.0, 16.0, 0.25):
        device = replace(target.cluster.device, memory_bytes=int(gib * 2**30), memory_usable_bytes=None)
        cluster = replace(target.cluster, device=device)
        try:
            choice = plan(workload, cluster, target.stack, space=space, simplify=False)
        except NoPlanFitsError:
            continue
        other = surer_plan(workload, cluster, target.stack, space, choice)
        tight += choice.estimate.tight
        if other is not None:
            assert not other.estimate.tight
            assert other.estimate.fits
    assert tight
