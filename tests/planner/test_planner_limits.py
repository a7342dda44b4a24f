"""Deadlines, budgets, power caps and the fewest devices: what is offered within them, and which cannot be met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from machine_factory import SMALL_GPU
from small_box import CLUSTER, MODEL, STACK, SYSTEM, WIDE, WIDE_CLUSTER, with_memory

from txlplan.cost import estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster
from txlplan.plan_file import Plan
from txlplan.planner import Space, plan
from txlplan.units import format_s
from txlplan.workload import Workload

LIMITED = Space(precision=("fp16",), offload=("none",), zero_stage=(0,), tensor_parallel=(1,), pipeline_parallel=(1,))
"""Small, with plans of every number of devices."""


def test_the_fewest_devices_that_meet_a_deadline() -> None:
    workload = Workload(model=MODEL, global_batch=64, tokens=10**9)
    alone = plan(workload, CLUSTER, STACK, space=Space(data_parallel=(1,), runnable=True))
    assert alone.totals.time_s is not None
    wanted = replace(workload, objective="fewest-devices", deadline_s=alone.totals.time_s.value * 0.9)
    found = plan(wanted, CLUSTER, STACK, space=Space(runnable=True))
    assert found.plan.n_devices == 2
    assert found.totals.time_s is not None
    assert found.totals.time_s.value <= wanted.deadline_s  # type: ignore[operator]
    with pytest.raises(InputError, match="deadline"):
        plan(replace(wanted, deadline_s=None), CLUSTER, STACK)


def test_of_the_fewest_devices_the_fastest_plan_is_offered_and_no_slower_one_is_called_even() -> None:
    """The number of devices is nearly all of that objective: its slack would cover plans of any speed."""
    free = plan(WIDE, WIDE_CLUSTER, STACK, space=Space(devices=(2,)), simplify=False)
    deadline_s = 1.5 * 10**9 / free.estimate.tokens_per_s.value
    workload = replace(WIDE, tokens=10**9, objective="fewest-devices", deadline_s=deadline_s)
    found = plan(workload, WIDE_CLUSTER, STACK)
    assert found.optimum is None
    alone = plan(WIDE, WIDE_CLUSTER, STACK, space=Space(devices=(found.plan.n_devices,)), simplify=False)
    assert found.estimate.tokens_per_s.value == alone.estimate.tokens_per_s.value


LIMITS = {"deadline_s": "the deadline of", "budget_usd": "the budget of", "power_cap_w": "the power cap of"}


@pytest.mark.parametrize("names", [("deadline_s",), ("budget_usd",), ("power_cap_w",)])
def test_a_limit_that_cannot_be_met_is_named(names: tuple[str, ...]) -> None:
    with pytest.raises(NoPlanFitsError, match=f"no plan on box meets {LIMITS[names[0]]}"):
        plan(replace(WIDE, tokens=10**9, **{names[0]: 1e-3}), WIDE_CLUSTER, STACK)  # type: ignore[arg-type]


@pytest.mark.no_cover
@given(
    deadline=st.sampled_from([None, 0.5, 0.9, 1.1, 1.6, 3.0]),
    budget=st.sampled_from([None, 0.5, 0.9, 1.1, 1.6, 3.0]),
    power=st.sampled_from([None, 200.0, 350.0, 700.0, 1300.0, 2500.0]),
)
@settings(max_examples=60, deadline=None)
def test_of_limits_that_cannot_be_met_the_fewest_are_named(
    deadline: float | None, budget: float | None, power: float | None
) -> None:
    """Alone, as a pair or all three, and what is named cannot be met without the others either, and each part of it can."""
    workload = replace(WIDE, tokens=10**9)
    fastest, cheapest = (
        plan(replace(workload, objective=one), WIDE_CLUSTER, STACK, space=LIMITED, simplify=False).totals
        for one in ("fastest", "cheapest")
    )
    assert fastest.time_s is not None
    assert cheapest.cost_usd is not None
    asked = {
        "deadline_s": deadline and deadline * fastest.time_s.value,
        "budget_usd": budget and budget * cheapest.cost_usd.value,
        "power_cap_w": power,
    }

    def refused(names: Iterable[str]) -> str:
        try:
            plan(
                replace(workload, **{name: asked[name] for name in names}),  # type: ignore[arg-type]
                WIDE_CLUSTER, STACK, space=LIMITED, simplify=False,
            )  # fmt: skip
        except NoPlanFitsError as error:
            return error.message
        return ""

    message = refused(asked)
    named = [name for name, words in LIMITS.items() if words in message]
    event(f"named {len(named)}")
    assert bool(message) == bool(named)
    if named:
        assert refused(named) == message
        assert not any(refused(set(named) - {one}) for one in named)
        assert ("exclude each other: within the" in message) == (len(named) > 1)


def test_a_power_cap_and_limits_that_exclude_each_other() -> None:
    workload = Workload(model=MODEL, global_batch=64, tokens=10**9)
    capped = plan(replace(workload, power_cap_w=600.0), CLUSTER, STACK, space=Space(runnable=True))
    assert capped.plan.n_devices <= 2
    with pytest.raises(NoPlanFitsError, match="the least that fits draws 300 W"):
        plan(replace(workload, power_cap_w=100.0), CLUSTER, STACK)
    assert capped.totals.time_s is not None
    with pytest.raises(NoPlanFitsError, match="exclude each other"):
        plan(replace(workload, power_cap_w=300.0, deadline_s=capped.totals.time_s.value), CLUSTER, STACK)


def test_what_fits_with_checkpointing_alone_and_is_late_is_not_refused_for_its_memory() -> None:
    space = Space(micro_batch=(64,), data_parallel=(1,), precision=("fp32",), runnable=True)
    workload = Workload(model=MODEL, global_batch=64, tokens=10**9)
    plain, full = estimate(
        workload, CLUSTER, STACK, [Plan(micro_batch=64), Plan(micro_batch=64, activation_checkpointing="full")]
    )
    tight = with_memory(int((plain.peak_memory_bytes.value + full.peak_memory_bytes.value) / 2 / 0.95))
    found = plan(workload, tight, STACK, space=space)
    assert found.plan.activation_checkpointing != "none"
    assert found.totals.time_s is not None
    fastest_s, bound_s = found.totals.time_s.value, workload.tokens / plain.tokens_per_s.value  # type: ignore[operator]
    late = replace(workload, deadline_s=(bound_s + fastest_s) / 2)
    with pytest.raises(NoPlanFitsError, match=f"meets the deadline of .*: the fastest takes {format_s(fastest_s)}"):
        plan(late, tight, STACK, space=space)


def test_deadline_and_budget() -> None:
    workload = Workload(model=MODEL, tokens=10**9)
    best = plan(workload, CLUSTER, STACK, simplify=False)
    assert best.totals.time_s is not None
    assert best.totals.cost_usd is not None
    seconds, dollars = best.totals.time_s.value, best.totals.cost_usd.value
    assert dollars == pytest.approx(seconds / 3600 * 12.0)
    assert plan(replace(workload, deadline_s=seconds * 1.01, budget_usd=dollars * 1.01), CLUSTER, STACK).plan == best.plan
    with pytest.raises(NoPlanFitsError, match="deadline"):
        plan(replace(workload, deadline_s=seconds * 0.99), CLUSTER, STACK)
    with pytest.raises(NoPlanFitsError, match="cheapest costs"):
        plan(replace(workload, budget_usd=dollars * 0.5), CLUSTER, STACK)
    with pytest.raises(InputError, match="tokens"):
        plan(Workload(model=MODEL, deadline_s=1.0), CLUSTER, STACK)


ALL_OF_THEM = Space(devices=(16,))
"""On fewer devices a plan costs less, and may surely keep to a budget."""


@pytest.mark.parametrize("name", ["deadline_s", "budget_usd"])
def test_within_a_limit_a_simpler_plan_is_offered_where_it_surely_keeps_it(name: str) -> None:
    """One that keeps it at the high end of its range; else the best by its figures, which keeps it by them."""
    workload = replace(WIDE, tokens=10**9)
    free, best = (plan(workload, WIDE_CLUSTER, STACK, space=ALL_OF_THEM, simplify=simplify) for simplify in (True, False))
    assert free.plan != best.plan
    assert free.totals.time_s is not None
    assert free.totals.cost_usd is not None
    figure = free.totals.time_s if name == "deadline_s" else free.totals.cost_usd
    for share in (1.000001, 10.0, 1e9):
        within = plan(replace(workload, **{name: figure.high * share}), WIDE_CLUSTER, STACK, space=ALL_OF_THEM)  # type: ignore[arg-type]
        assert within.plan == free.plan
        assert within.optimum is not None
    close = plan(replace(workload, **{name: figure.value * 1.01}), WIDE_CLUSTER, STACK, space=ALL_OF_THEM)  # type: ignore[arg-type]
    assert close.plan == best.plan
    assert close.optimum is None


def test_of_as_few_devices_plans_are_compared_in_time() -> None:
    """A slower plan on the same device is not as good."""
    workload = replace(WIDE, tokens=10**9, objective="fewest-devices", deadline_s=1e9)
    space = Space(data_parallel=(1,), precision=("fp32",), offload=("none",), runnable=True)
    found = plan(workload, CLUSTER, STACK, space=space, explain=True)
    assert found.runners_up
    for other in found.runners_up:
        assert other.plan.n_devices == found.plan.n_devices
        slower = found.estimate.tokens_per_s.value / other.estimate.tokens_per_s.value - 1
        assert other.behind == pytest.approx(slower, abs=1e-12)
    assert found.runners_up[-1].behind > 0.01
    slow = [one for one in found.rejections if one.setting == "micro_batch" and one.behind]
    assert slow
    assert all((one.behind or 0) < 0.0005 or "as good" not in one.reason for one in slow)


def test_figures_of_plans_that_fit_are_named_where_none_fits_without_checkpointing() -> None:
    """The least that the refusal names is that of a checkpointed plan, beyond what the plain ones would take."""
    space = Space(micro_batch=(64,), data_parallel=(1, 2), precision=("fp32",), runnable=True)
    workload = Workload(model=MODEL, global_batch=128, tokens=10**9)
    plans = [Plan(micro_batch=64, accumulation=2 // n, data_parallel=n, activation_checkpointing=kind)
             for n in (1, 2) for kind in ("none", "full")]  # fmt: skip
    peaks = estimate(workload, CLUSTER, STACK, plans).peak_memory_bytes
    tight = with_memory(int((max(peaks[1], peaks[3]) + min(peaks[0], peaks[2])) / 2 / 0.95))
    fastest = plan(workload, tight, STACK, space=space, simplify=False)
    assert fastest.totals.time_s is not None
    least = f"the fastest takes {format_s(fastest.totals.time_s.value)}"
    with pytest.raises(NoPlanFitsError, match=f"meets the deadline of .*: {least}"):
        plan(replace(workload, deadline_s=1e-3), tight, STACK, space=space)
    with pytest.raises(NoPlanFitsError, match="the term that overflows"):
        plan(replace(workload, deadline_s=1e-3), with_memory(301 * 2**20), STACK, space=space)


@pytest.mark.parametrize(
    ("objective", "cluster", "missing"),
    [
        ("cheapest", replace(CLUSTER, system=replace(SYSTEM, prices=())), "price"),
        ("least-energy", replace(CLUSTER, device=replace(SMALL_GPU, power_w=None)), "power"),
    ],
)
def test_objectives_need_their_figures(objective: Any, cluster: Cluster, missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        plan(Workload(model=MODEL, objective=objective), cluster, STACK)
