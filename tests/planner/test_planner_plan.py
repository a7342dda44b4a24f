"""The planner against brute force, and its refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from txlplan.choices import Objective
from txlplan.cost import estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster, DeviceProfile, Link, Price, Spread, StackProfile, SystemProfile
from txlplan.model import ModelConfig, models
from txlplan.plan_file import Plan
from txlplan.planner import Candidate, Space, plan, surer_plan
from txlplan.planner._infeasible import fixes
from txlplan.planner._space import global_batches
from txlplan.units import format_s
from txlplan.workload import MOST_SEQUENCES, Workload

MODEL = ModelConfig(id="m", n_layer=2, d_model=64, n_head=4, d_head=16, d_inner=128, vocab_size=500, tgt_len=32, mem_len=32)
DEVICE = DeviceProfile(
    id="gpu",
    name="GPU",
    kind="gpu",
    vendor="x",
    architecture="volta",
    memory_bytes=2 * 2**30,
    memory_bandwidth_bytes_per_s=900e9,
    peak_flops_per_s={"fp32": 15e12, "fp16": 120e12},
    cores=80,
    power_w=300.0,
)
LINK = Link(kind="nvswitch2", bandwidth_bytes_per_s=300e9)
SYSTEM = SystemProfile(
    id="box",
    name="Box",
    kind="cloud",
    device="gpu",
    n_devices=4,
    intra_node=LINK,
    prices=(Price(kind="on-demand", rent_usd_per_h=12.0, date="2026-01-01", source="test"),),
)
CLUSTER = Cluster(system=SYSTEM, device=DEVICE)
STACK = StackProfile(id="plain", family="txlplan", version="0", context_bytes=300 * 2**20)


WIDE = Workload(model=MODEL, global_batch=64)
WIDE_CLUSTER = Cluster(system=replace(SYSTEM, n_devices=8, intra_node=LINK, inter_node=LINK), device=DEVICE, n_nodes=2)
"""Where a simpler plan is not told apart."""
LIMITED = Space(precision=("fp16",), offload=("none",), zero_stage=(0,), tensor_parallel=(1,), pipeline_parallel=(1,))
"""Small, with plans of every number of devices."""


def _with_memory(bytes_: int) -> Cluster:
    return replace(CLUSTER, device=replace(DEVICE, memory_bytes=bytes_))


def _subset(*values: Any) -> Any:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(tuple)


def _one(*values: Any) -> Any:
    return st.sampled_from(values).map(lambda value: (value,))


SPACES = st.builds(
    Space,
    precision=_subset("fp32", "fp16"),
    activation_checkpointing=_subset("none", "attention", "feed-forward", "full"),
    checkpointed_layers=st.sampled_from([(0,), (1,), (0, 1)]),
    data_parallel=_one(1, 2, 4),
    tensor_parallel=_one(1, 2),
    pipeline_parallel=_one(1, 2),
    virtual_stages=st.just((1,)),
    context_parallel=_one(1, 2),
    zero_stage=_subset(0, 1, 2, 3),
    offload=_one("none", "optimizer"),
)


def _figure(workload: Workload, cluster: Cluster, candidate: Plan) -> float | None:
    """What is to be least, of one plan costed alone; None where it does not fit."""
    found = estimate(workload, cluster, STACK, [candidate])
    if not found.fits[0]:
        return None
    joules = found.energy_j_per_token
    assert joules is not None
    return float(joules[0] if workload.objective == "least-energy" else 1 / found.tokens_per_s[0])


@given(
    space=SPACES,
    batch=st.sampled_from([1, 2, 4, 6, 8]),
    memory_mib=st.integers(310, 420),
    objective=st.sampled_from(["fastest", "cheapest", "least-energy"]),
)
@settings(max_examples=200, deadline=None)
def test_the_choice_equals_brute_force(space: Space, batch: int, memory_mib: int, objective: Any) -> None:
    """Every plan of every space costed alone, one after another, and the least taken."""
    workload = Workload(model=MODEL, global_batch=batch, objective=objective)
    cluster = _with_memory(memory_mib * 2**20)
    try:
        plans = space.plans(workload, cluster, STACK)
    except InputError:
        with pytest.raises(InputError):
            plan(workload, cluster, STACK, space=space)
        return
    event("plans compared", len(plans))
    scores = {candidate: figure for candidate in plans if (figure := _figure(workload, cluster, candidate)) is not None}
    if not scores:
        with pytest.raises(NoPlanFitsError):
            plan(workload, cluster, STACK, space=space, simplify=False)
        return
    choice = plan(workload, cluster, STACK, space=space, simplify=False)
    assert choice.n_considered == len(plans)
    assert scores[choice.plan] == min(scores.values())
    assert choice.plan.global_batch == batch
    assert all(other.behind >= 0 and other.difference for other in choice.runners_up)


@pytest.mark.parametrize(("memory_mib", "batch"), [(2048, 64), (330, 128)])
def test_what_is_cut_is_worse_than_what_is_found(memory_mib: int, batch: int) -> None:
    """All of a hundred thousand plans costed: the same best plan as the search, which costs a part of them."""
    device = replace(DEVICE, memory_bytes=memory_mib * 2**20)
    cluster = Cluster(system=replace(SYSTEM, n_devices=8, intra_node=LINK, inter_node=LINK), device=device, n_nodes=16)
    workload = Workload(model=replace(MODEL, n_layer=12, n_head=8), global_batch=batch)
    plans = Space().plans(workload, cluster, STACK)
    assert len(plans) >= 100_000
    everything = estimate(workload, cluster, STACK, plans)
    found = plan(workload, cluster, STACK, simplify=False)
    assert found.n_considered == len(plans)
    assert found.n_costed < len(plans)
    best = float(np.where(everything.fits, everything.tokens_per_s, 0.0).max())
    assert found.estimate.tokens_per_s.value == best


@given(space=SPACES, memory_mib=st.integers(320, 600), batch=st.sampled_from([2, 4, 8]))
@settings(max_examples=15, deadline=None)
def test_better_hardware_and_a_larger_budget_never_make_it_worse(space: Space, memory_mib: int, batch: int) -> None:
    """More memory keeps feasible what was; a faster device or link is not slower; more money and time cost nothing."""
    workload = Workload(model=MODEL, global_batch=batch, tokens=10**8)
    cluster = _with_memory(memory_mib * 2**20)
    try:
        before = plan(workload, cluster, STACK, space=space, simplify=False)
    except (InputError, NoPlanFitsError):
        return
    assert before.totals.cost_usd is not None
    device = cluster.device
    more = replace(cluster, device=replace(device, memory_bytes=2 * device.memory_bytes))
    faster = replace(
        cluster, device=replace(device, peak_flops_per_s={name: 2 * peak for name, peak in device.peak_flops_per_s.items()})
    )
    link = replace(LINK, bandwidth_bytes_per_s=2 * LINK.bandwidth_bytes_per_s)
    joined = replace(cluster, system=replace(cluster.system, intra_node=link))
    for better in (more, faster, joined):
        after = plan(workload, better, STACK, space=space, simplify=False)
        assert after.estimate.step_s.value <= before.estimate.step_s.value * (1 + 1e-12)
    dollars = before.totals.cost_usd.value
    costs = []
    for budget in (1.01 * dollars, 2 * dollars):
        within = plan(replace(workload, budget_usd=budget), cluster, STACK, space=space, simplify=False)
        costs.append(within.estimate.step_s.value)
    assert costs[1] <= costs[0]


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


def test_a_simpler_plan_is_offered_where_the_ranges_cannot_tell() -> None:
    workload, cluster = WIDE, WIDE_CLUSTER
    exact = plan(workload, cluster, STACK, simplify=False)
    offered = plan(workload, cluster, STACK)
    assert exact.optimum is None
    assert offered.optimum is not None
    assert offered.optimum.plan == exact.plan
    assert offered.optimum.behind <= 0
    assert offered.estimate.tokens_per_s.value > 0.8 * exact.estimate.tokens_per_s.value
    sure = replace(STACK, spread=Spread(time_log_sd=1e-6, memory_log_sd=1e-6, extrapolated_time_log_sd=1e-6, source="test"))
    assert plan(workload, cluster, sure).plan == exact.plan


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


def test_explain_says_why_not() -> None:
    cluster = _with_memory(340 * 2**20)
    found = plan(Workload(model=MODEL, global_batch=64), cluster, STACK, explain=True)
    said = {(rejection.setting, rejection.value): rejection for rejection in found.rejections}
    assert said[("tensor_parallel", 4)].behind is not None
    assert all(rejection.reason for rejection in found.rejections)
    assert all(getattr(found.plan, rejection.setting) != rejection.value for rejection in found.rejections)


def test_what_fits_with_checkpointing_alone_and_is_late_is_not_refused_for_its_memory() -> None:
    space = Space(micro_batch=(64,), data_parallel=(1,), precision=("fp32",), runnable=True)
    workload = Workload(model=MODEL, global_batch=64, tokens=10**9)
    plain, full = estimate(
        workload, CLUSTER, STACK, [Plan(micro_batch=64), Plan(micro_batch=64, activation_checkpointing="full")]
    )
    tight = _with_memory(int((plain.peak_memory_bytes.value + full.peak_memory_bytes.value) / 2 / 0.95))
    found = plan(workload, tight, STACK, space=space)
    assert found.plan.activation_checkpointing != "none"
    assert found.totals.time_s is not None
    fastest_s, bound_s = found.totals.time_s.value, workload.tokens / plain.tokens_per_s.value  # type: ignore[operator]
    late = replace(workload, deadline_s=(bound_s + fastest_s) / 2)
    with pytest.raises(NoPlanFitsError, match=f"meets the deadline of .*: the fastest takes {format_s(fastest_s)}"):
        plan(late, tight, STACK, space=space)


@pytest.mark.parametrize("objective", ["fastest", "least-energy"])
def test_every_reason_tells_two_plans_apart(objective: Objective) -> None:
    """What is no worse is not said to be, and no figure is set against itself."""
    cluster = Cluster(system=replace(SYSTEM, n_devices=8, intra_node=LINK, inter_node=LINK), device=DEVICE, n_nodes=2)
    found = plan(Workload(model=MODEL, global_batch=64, objective=objective), cluster, STACK, explain=True)
    assert found.rejections
    for one in found.rejections:
        if one.behind is not None and abs(one.behind) < 0.0005:
            assert "as good" in one.reason, one
        elif one.behind is not None:
            assert ("better by its figures" in one.reason) == (one.behind < 0), one
        if " for the same tokens, not " in one.reason:
            takes, _, instead = one.reason.partition(" for the same tokens, not ")
            assert takes.partition(": ")[2] != instead.partition(" (")[0], one


def test_explain_keeps_to_the_checkpointing_that_was_asked_for() -> None:
    space = Space(activation_checkpointing=("none", "full"))
    found = plan(Workload(model=MODEL, global_batch=64), CLUSTER, STACK, space=space, explain=True)
    assert {one.value for one in found.rejections if one.setting == "activation_checkpointing"} == {"full"}


def test_only_what_runs_where_that_is_asked_for() -> None:
    cluster = Cluster(system=replace(SYSTEM, n_devices=8, intra_node=LINK, inter_node=LINK), device=DEVICE, n_nodes=2)
    plans = Space(runnable=True).plans(Workload(model=MODEL, global_batch=64), cluster, STACK)
    assert all(candidate.runnable for candidate in plans)
    assert not all(candidate.runnable for candidate in Space().plans(Workload(model=MODEL, global_batch=8), cluster, STACK))


def test_the_space_without_a_global_batch_takes_the_published_one() -> None:
    assert plan(Workload(model=replace(MODEL, published_batch=24)), CLUSTER, STACK).plan.global_batch == 24
    assert plan(Workload(model=MODEL), CLUSTER, STACK).plan.global_batch == 32


def test_a_range_of_batches_is_searched_as_one_space() -> None:
    ranged = Workload(model=MODEL, global_batch=24, largest_global_batch=100)
    assert global_batches(ranged) == (24, 48, 96, 100)
    found = plan(ranged, CLUSTER, STACK, simplify=False)
    each = [plan(Workload(model=MODEL, global_batch=size), CLUSTER, STACK, simplify=False) for size in (24, 48, 96, 100)]
    fastest = max(each, key=lambda choice: choice.estimate.tokens_per_s.value)
    assert found.estimate.tokens_per_s.value == fastest.estimate.tokens_per_s.value
    assert found.plan.global_batch in (24, 48, 96, 100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"largest_global_batch": 8}, "needs a global_batch"),
        ({"global_batch": 16, "largest_global_batch": 8}, "less than"),
        ({"global_batch": 8, "largest_global_batch": 16, "task": "score"}, "for training"),
    ],
)
def test_ranges_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Workload(model=MODEL, **options)


def test_the_order_in_which_plans_are_costed_changes_nothing() -> None:
    workload = Workload(model=MODEL, global_batch=24)
    plans = list(Space().plans(workload, CLUSTER, STACK))
    forward, backward = estimate(workload, CLUSTER, STACK, plans), estimate(workload, CLUSTER, STACK, plans[::-1])
    assert (forward.step_s == backward.step_s[::-1]).all()
    assert (forward.peak_memory_bytes == backward.peak_memory_bytes[::-1]).all()
    chosen = [
        plan(workload, CLUSTER, STACK, space=Space(precision=order, zero_stage=stages)).plan
        for order, stages in ((("fp32", "fp16"), (0, 1, 2, 3)), (("fp16", "fp32"), (3, 1, 0, 2)))
    ]
    assert chosen[0] == chosen[1]


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


def test_inference_chooses_its_batch() -> None:
    choice = plan(Workload(model=MODEL, task="score"), CLUSTER, STACK)
    assert choice.plan.accumulation == 1
    assert choice.plan.micro_batch > 1


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
        plan(Workload(model=MODEL, global_batch=batch), _with_memory(memory), STACK, space=space)
    assert "the term that overflows is" in error.value.message
    assert "too many" in error.value.message
    assert error.value.hint is not None
    assert change in error.value.hint


def test_a_suggested_micro_batch_fits() -> None:
    cluster = _with_memory(400 * 2**20)
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
    cluster = _with_memory(400 * 2**20)
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


def test_deadline_and_budget() -> None:
    workload = Workload(model=MODEL, tokens=10**9)
    best = plan(workload, CLUSTER, STACK, simplify=False)
    assert best.totals.time_s is not None
    assert best.totals.cost_usd is not None
    seconds, dollars = best.totals.time_s.value, best.totals.cost_usd.value
    assert dollars == pytest.approx(seconds / 3600 * 12.0)
    assert plan(replace(workload, deadline_s=seconds * 1.01, budget_usd=dollars * 1.01), CLUSTER, STACK).plan == best.plan
    for limit in ({"deadline_s": 1e12}, {"budget_usd": 1e12}):
        wide = plan(replace(WIDE, tokens=10**9, **limit), WIDE_CLUSTER, STACK)  # type: ignore[arg-type]
        assert wide.optimum is None
        assert wide.plan == plan(WIDE, WIDE_CLUSTER, STACK, simplify=False).plan
    with pytest.raises(NoPlanFitsError, match="deadline"):
        plan(replace(workload, deadline_s=seconds * 0.99), CLUSTER, STACK)
    with pytest.raises(NoPlanFitsError, match="cheapest costs"):
        plan(replace(workload, budget_usd=dollars * 0.5), CLUSTER, STACK)
    with pytest.raises(InputError, match="tokens"):
        plan(Workload(model=MODEL, deadline_s=1.0), CLUSTER, STACK)


@pytest.mark.parametrize(
    ("objective", "cluster", "missing"),
    [
        ("cheapest", replace(CLUSTER, system=replace(SYSTEM, prices=())), "price"),
        ("least-energy", replace(CLUSTER, device=replace(DEVICE, power_w=None)), "power"),
    ],
)
def test_objectives_need_their_figures(objective: Any, cluster: Cluster, missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        plan(Workload(model=MODEL, objective=objective), cluster, STACK)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Space(precision=("bf16",)), "has no bf16"),
        (Space(data_parallel=(5,)), "more than the cluster has room for"),
        (Space(micro_batch=(7,)), "no plan divides"),
    ],
)
def test_spaces_that_make_no_sense(space: Space, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(Workload(model=MODEL, global_batch=32), CLUSTER, STACK, space=space)


def test_a_cpu_chooses_threads_and_only_its_precisions() -> None:
    cpu = replace(DEVICE, kind="cpu", cores=6, peak_flops_per_s={"fp32": 200e9})
    cluster = Cluster(system=replace(SYSTEM, n_devices=1), device=cpu)
    plans = Space().plans(Workload(model=MODEL), cluster, STACK)
    assert {candidate.precision for candidate in plans} == {"fp32"}
    assert {candidate.threads for candidate in plans} == {1, 2, 4, 6}
    assert plan(Workload(model=MODEL), cluster, STACK).plan.threads == 6


def test_the_best_plan_that_fits_at_the_high_end_of_its_memory_is_offered_beside() -> None:
    spread = Spread(time_log_sd=0.1, memory_log_sd=0.3, extrapolated_time_log_sd=0.1, source="test")
    unsure = replace(STACK, context_bytes=2**20, spread=spread)
    workload = replace(WIDE, model=replace(MODEL, d_inner=2048), tokens=10**9)
    space = Space(precision=("fp32",), offload=("none",))
    sure = plan(workload, CLUSTER, unsure, space=space)
    assert not sure.estimate.tight
    assert surer_plan(workload, CLUSTER, unsure, space, sure) is None
    peak = sure.estimate.peak_memory_bytes
    device = replace(DEVICE, memory_bytes=int(1.05 * peak.value / 0.95), memory_usable_bytes=None)
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
