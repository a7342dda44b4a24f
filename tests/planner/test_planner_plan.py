"""The planner against brute force, and what it says of its choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from machine_factory import PC, SMALL_GPU
from small_box import CLUSTER, LINK, MODEL, STACK, SYSTEM, WIDE, WIDE_CLUSTER, with_memory

from txlplan.choices import Objective, Precision, Task
from txlplan.cost import Plans, estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster, EfficiencyPoint, Link, ReservedModel, Spread, StackProfile, devices, stacks, systems
from txlplan.plan_file import Plan
from txlplan.planner import Candidate, Space, compare, plan
from txlplan.planner._explain import _UNMEASURED
from txlplan.planner._space import global_batches
from txlplan.workload import Workload


def _subset(*values: Any) -> Any:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(tuple)


def _one(*values: Any) -> Any:
    return st.sampled_from(values).map(lambda value: (value,))


SPACES = st.builds(
    Space,
    precision=_subset("fp32", "fp16"),
    activation_checkpointing=_subset("none", "attention", "feed-forward", "full"),
    checkpointed_layers=st.sampled_from([(0,), (1,), (0, 2)]),
    data_parallel=st.sampled_from([(1,), (2,), (4,), (1, 8), (4, 8)]),
    tensor_parallel=_one(1, 2),
    pipeline_parallel=_one(1, 2),
    virtual_stages=_one(1, 2),
    context_parallel=_one(1, 2),
    zero_stage=_subset(0, 1, 2, 3),
    offload=_one("none", "optimizer"),
)


SLOW = Link(kind="ethernet", bandwidth_bytes_per_s=2e8)
RESERVED = ReservedModel(
    saved=1.2, logits=2.0, logits_half=2.0, logits_half_lamb=2.0, tables_adam=1.0, tables_lamb=1.0, ceiling=0.9
)
STACKS = st.builds(
    replace,
    st.just(STACK),
    communication_overlap=st.sampled_from([0.0, 0.5, 1.0]),
    gradient_sync=st.sampled_from(["step", "micro-batch"]),
    unattributed=st.sampled_from([0.0, -0.2]),
    reserved=st.sampled_from([None, RESERVED]),
)
"""What the cut must hold for: hiding, a fitted allocator, whole steps that take less than their operations."""


def _figures(workload: Workload, cluster: Cluster, stack: StackProfile, candidate: Plan) -> tuple[float, ...] | None:
    """What is to be least, of one plan costed alone; None where it does not fit."""
    found = estimate(workload, cluster, stack, [candidate])
    if not found.fits[0]:
        return None
    seconds, devices, joules = float(1 / found.tokens_per_s[0]), candidate.n_devices, found.energy_j_per_token
    assert joules is not None
    return {
        "fastest": (seconds,),
        "cheapest": (seconds * -(-devices // 4),),
        "least-energy": (float(joules[0]),),
        "fewest-devices": (devices, seconds),
    }[workload.objective]


@pytest.mark.no_cover
@given(
    space=SPACES,
    stack=STACKS,
    link=st.sampled_from([LINK, SLOW]),
    n_nodes=st.sampled_from([1, 2]),
    batch=st.sampled_from([1, 4, 6, 8]),
    memory_mib=st.integers(310, 420),
    objective=st.sampled_from(get_args(Objective)),
)
@settings(max_examples=200, deadline=None)
def test_the_choice_equals_brute_force(
    space: Space, stack: StackProfile, link: Link, n_nodes: int, batch: int, memory_mib: int, objective: Objective
) -> None:
    """Every plan of every space costed alone, one after another, and the least taken."""
    workload = Workload(model=replace(MODEL, n_layer=4), global_batch=batch, objective=objective, tokens=10**9)
    cluster = with_memory(memory_mib * 2**20)
    cluster = replace(cluster, system=replace(cluster.system, intra_node=link, inter_node=link), n_nodes=n_nodes)
    try:
        plans = space.plans(workload, cluster, stack)
    except InputError:
        with pytest.raises(InputError):
            plan(workload, cluster, stack, space=space)
        return
    event("plans compared", len(plans))
    known = {candidate: figures for candidate in plans if (figures := _figures(workload, cluster, stack, candidate))}
    if objective == "fewest-devices":
        seconds = sorted(figures[1] for figures in known.values()) or [1.0]
        limit = seconds[len(seconds) // 2] * 1.000001
        workload = replace(workload, deadline_s=limit * 10**9)
        known = {candidate: figures for candidate, figures in known.items() if figures[1] <= limit}
    if not known:
        with pytest.raises(NoPlanFitsError):
            plan(workload, cluster, stack, space=space, simplify=False)
        return
    choice = plan(workload, cluster, stack, space=space, simplify=False)
    assert choice.n_considered == len(plans)
    assert known[choice.plan][:-1] == min(known.values())[:-1]
    rounding = 1e-12 if objective == "fewest-devices" else 0.0  # two figures in one number
    assert known[choice.plan][-1] <= min(known.values())[-1] * (1 + rounding)
    assert choice.plan.global_batch == batch
    assert all(other.behind >= 0 and other.difference for other in choice.runners_up)


HIDING = replace(STACK, communication_overlap=1.0)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("memory_mib", "batch", "link", "stack"), [(2048, 64, LINK, STACK), (330, 128, LINK, STACK), (330, 128, SLOW, HIDING)]
)
def test_what_is_cut_is_worse_than_what_is_found(memory_mib: int, batch: int, link: Link, stack: StackProfile) -> None:
    """All of a hundred thousand plans costed: the same best plan as the search, which costs a part of them."""
    device = replace(SMALL_GPU, memory_bytes=memory_mib * 2**20)
    cluster = Cluster(system=replace(SYSTEM, n_devices=8, intra_node=LINK, inter_node=link), device=device, n_nodes=16)
    workload = Workload(model=replace(MODEL, n_layer=12, n_head=8), global_batch=batch)
    plans = Space().plans(workload, cluster, stack)
    assert len(plans) >= 100_000
    everything = estimate(workload, cluster, stack, plans)
    found = plan(workload, cluster, stack, simplify=False)
    assert found.n_considered == len(plans)
    assert found.n_costed < len(plans)
    best = float(np.where(everything.fits, everything.tokens_per_s, 0.0).max())
    assert found.estimate.tokens_per_s.value == best


def test_plans_that_no_layer_of_can_checkpoint_do_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of the fastest plans have no stage of so many layers; the best that has comes after them."""
    monkeypatch.setattr("txlplan.planner._search._BATCH", 1)
    workload = Workload(model=replace(MODEL, n_layer=12), global_batch=5040)
    space = Space(
        activation_checkpointing=("full",),
        checkpointed_layers=(11,),
        data_parallel=(1,),
        tensor_parallel=(1,),
        context_parallel=(1,),
    )
    device = replace(SMALL_GPU, memory_bytes=16 * 2**30)
    cluster = Cluster(system=replace(SYSTEM, n_devices=12, intra_node=LINK), device=device)
    space = replace(space, devices=(1, 2, 3, 4, 6, 12))
    plans = space.plans(workload, cluster, STACK)
    every = estimate(workload, cluster, STACK, plans)
    found = plan(workload, cluster, STACK, space=space, simplify=False)
    assert found.estimate.tokens_per_s.value == every.tokens_per_s[every.fits].max()


def test_every_number_of_layers_of_the_largest_stage_is_considered() -> None:
    """Beside a costly loss the first stages of a pipeline have more layers than an equal share."""
    model = replace(MODEL, n_layer=8, d_model=256, d_inner=512, vocab_size=60_000, n_head=4)
    workload, stack = Workload(model=model, global_batch=64), replace(STACK, host_op_s=0.0)
    space = Space(
        micro_batch=(16,), pipeline_parallel=(2,), virtual_stages=(1,), data_parallel=(1,), activation_checkpointing=("full",)
    )
    plans = space.plans(workload, WIDE_CLUSTER, stack)
    numbers = np.arange(1, model.n_layer + 1)
    one = plans[:1]
    alike = Plans.joined([one.replaced(checkpointed_layers=number) for number in numbers[:-1]] + [one])
    told_apart = int(np.unique(estimate(workload, WIDE_CLUSTER, stack, alike).step_s).size)
    assert told_apart > model.n_layer // 2
    mine = [each for each in plans if replace(each, checkpointed_layers=None) == replace(one[0], checkpointed_layers=None)]
    assert len(mine) == told_apart


@pytest.mark.no_cover
@given(space=SPACES, memory_mib=st.integers(320, 600), batch=st.sampled_from([2, 4, 8]))
@settings(max_examples=15, deadline=None)
def test_better_hardware_and_a_larger_budget_never_make_it_worse(space: Space, memory_mib: int, batch: int) -> None:
    """More memory keeps feasible what was; a faster device or link is not slower; more money and time cost nothing."""
    workload = Workload(model=MODEL, global_batch=batch, tokens=10**8)
    cluster = with_memory(memory_mib * 2**20)
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


def test_only_what_runs_where_that_is_asked_for() -> None:
    plans = Space(runnable=True).plans(Workload(model=MODEL, global_batch=64), WIDE_CLUSTER, STACK)
    assert all(candidate.runnable for candidate in plans)
    assert not all(
        candidate.runnable for candidate in Space().plans(Workload(model=MODEL, global_batch=8), WIDE_CLUSTER, STACK)
    )


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


def test_inference_chooses_its_batch() -> None:
    choice = plan(Workload(model=MODEL, task="score"), CLUSTER, STACK)
    assert choice.plan.accumulation == 1
    assert choice.plan.micro_batch > 1


@pytest.mark.parametrize(("task", "tokens_of_a_row"), [("generate", 1), ("score", MODEL.tgt_len)])
def test_no_more_rows_than_there_are_tokens_for(task: Task, tokens_of_a_row: int) -> None:
    workload = Workload(model=MODEL, task=task, tokens=100 * tokens_of_a_row)
    rows = {each.micro_batch * each.data_parallel for each in Space().plain(workload, CLUSTER, STACK)}
    assert max(rows) <= 100
    assert plan(replace(workload, tokens=1), CLUSTER, STACK, space=Space(data_parallel=(1,))).plan.micro_batch == 1


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
    cpu = replace(SMALL_GPU, kind="cpu", cores=6, peak_flops_per_s={"fp32": 200e9})
    cluster = Cluster(system=replace(SYSTEM, n_devices=1), device=cpu)
    plans = Space().plans(Workload(model=MODEL), cluster, STACK)
    assert {candidate.precision for candidate in plans} == {"fp32"}
    assert {candidate.threads for candidate in plans} == {1, 2, 4, 6}
    assert plan(Workload(model=MODEL), cluster, STACK).plan.threads == 6


def test_our_own_code_is_chosen_where_the_stack_was_measured_with_it_in_the_precisions_that_it_was() -> None:
    shape = {"work": 1e9, "m": 64, "n": 256, "k": 64, "dtype": "fp32"}
    tiles = (EfficiencyPoint(kind="bmm", utilisation=0.2, **shape), EfficiencyPoint(kind="gemm", utilisation=0.5, **shape))
    without = replace(STACK, implementation="fast", host_op_s=1e-9, efficiency=tiles)
    own = [EfficiencyPoint(kind="attention", utilisation=0.6, phase=phase, **shape) for phase in ("forward", "backward")]
    measured = replace(without, efficiency=(*tiles, *own))
    assert plan(Workload(model=MODEL), PC, replace(without, efficiency=(*tiles, own[0]))).plan.attention != "compiled"
    workload = Workload(model=replace(MODEL, tgt_len=512, mem_len=512))
    unmeasured = plan(workload, PC, without, explain=True)
    assert unmeasured.plan.attention == "fast"
    assert [each.reason for each in unmeasured.rejections if each.value == "compiled"] == [_UNMEASURED]
    assert not [each for each in plan(workload, PC, measured, explain=True).rejections if each.reason == _UNMEASURED]
    assert plan(workload, PC, measured).plan.attention == "compiled"
    (row,) = compare(replace(workload, tokens=10**9), [Candidate(cluster=PC, stack=measured)]).rows
    assert row.recommended.planned.choice.plan.attention == "compiled"
    plans = Space().plain(workload, PC, measured)
    assert {each.precision for each in plans if each.attention == "compiled"} == {"fp32"}
    assert {each.attention for each in Space(own_code=()).plain(workload, PC, measured)} == {"fast", "reference"}
    assert {each.attention for each in Space().plain(replace(workload, task="score"), PC, measured)} == {"fast", "compiled"}
    assert {each.attention for each in Space().plain(replace(workload, task="generate"), PC, measured)} == {"fast"}
    narrow = [replace(point, dtype="bf16") for point in (*tiles, *own)]
    plans = Space().plain(workload, PC, replace(measured, efficiency=(*measured.efficiency, *narrow)))
    assert {each.precision for each in plans if each.attention == "compiled"} == {"fp32", "bf16"}
    plans = Space(own_code=("fp32",)).plain(workload, PC, replace(measured, efficiency=(*measured.efficiency, *narrow)))
    assert {each.precision for each in plans if each.attention == "compiled"} == {"fp32"}
    for rates, dtype in (({"dropout": 0.1}, "fp32"), ({"dropatt": 0.1}, "int8")):
        drops = replace(workload, model=replace(workload.model, **rates))
        dropout = EfficiencyPoint(kind="dropout", dtype=dtype, work=1e6, utilisation=0.1)
        assert "compiled" not in {each.attention for each in Space().plain(drops, PC, measured)}
        assert "compiled" in {each.attention for each in Space().plain(replace(drops, task="score"), PC, measured)}
        with_dropout = replace(measured, efficiency=(*measured.efficiency, dropout))
        assert "compiled" in {each.attention for each in Space().plain(drops, PC, with_dropout)}
    asked = Space(attention=("compiled",), precision=("bf16",)).plain(workload, PC, measured)
    assert {(each.precision, each.attention) for each in asked} == {("bf16", "compiled")}
    asked = Space(attention=("compiled",), own_code=("fp32",)).plain(workload, PC, measured)
    assert {(each.precision, each.attention) for each in asked} == {("fp32", "compiled")}
    halved = replace(PC, device=replace(PC.device, peak_flops_per_s={**PC.device.peak_flops_per_s, "fp16": 1e12}))
    with pytest.raises(InputError, match="there is code for fp32 and bf16, not for fp16"):
        estimate(workload, halved, measured, [Plan(micro_batch=8, attention="compiled", precision="fp16")])
    with pytest.raises(InputError, match="there is code to train and to score on a CPU"):
        estimate(workload, CLUSTER, STACK, [Plan(micro_batch=8, attention="compiled")])


@pytest.mark.parametrize(
    ("task", "compiled", "alike"), [("train", None, False), ("score", None, True), ("generate", True, False)]
)
def test_what_would_compute_alike_is_planned_once(task: Task, compiled: bool | None, alike: bool) -> None:
    """A CPU without units for bf16 scores in fp32, whichever is asked for."""
    cpu = replace(devices.get("generic-cpu"), peak_flops_per_s={"fp32": 1e11, "bf16": 1e11})
    cluster, workload = Cluster(system=systems.get("generic-cpu"), device=cpu), Workload(model=MODEL, task=task)

    def precisions(*asked: Precision, cluster: Cluster = cluster) -> set[str]:
        space = Space(precision=asked or None, compile=compiled, runnable=True)
        plans = space.plain(workload, cluster, stacks.get("txlplan-cpu"))
        return {plans[index].precision for index in range(len(plans))}

    def own(cluster: Cluster) -> bool:
        asked = Space(precision=("bf16",), attention=("compiled",), compile=compiled, own_code=("fp32",))
        try:
            return bool(len(asked.plain(workload, cluster, stacks.get("txlplan-cpu"))))
        except InputError:
            return False

    units = replace(cluster, device=replace(cpu, peak_flops_per_s={"fp32": 1e11, "bf16": 2e11}))
    assert own(cluster) == alike, "attention in C++ is of the precision that is computed in"
    assert not own(units)
    assert precisions() == ({"fp32"} if alike else {"fp32", "bf16"})
    assert precisions("bf16") == {"bf16"}
    assert precisions(cluster=units) == {"fp32", "bf16"}


def test_our_stack_on_a_cpu_chooses_how_attention_is_computed() -> None:
    """Tiles are many operations: where the host is slow they cost more than they save, and elsewhere they do not."""
    ours = replace(STACK, implementation="fast")
    slow, quick = (replace(ours, host_op_s=host_op_s) for host_op_s in (1e-3, 1e-9))
    workload = Workload(model=replace(MODEL, tgt_len=512, mem_len=512))
    assert plan(workload, PC, slow).plan.attention == "reference"
    assert plan(workload, PC, quick).plan.attention == "fast"
    assert plan(workload, PC, slow, space=Space(attention=("fast",))).plan.attention == "fast"
    for stack, cluster, task in ((STACK, PC, "train"), (ours, CLUSTER, "train"), (ours, PC, "score")):
        asked = Workload(model=MODEL, task=task, global_batch=8)
        assert {each.attention for each in Space().plain(asked, cluster, stack)} == {"fast"}
