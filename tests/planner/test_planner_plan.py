"""The planner against brute force, and its refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.cost import estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster, DeviceProfile, Price, StackProfile, SystemProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.planner import Space, plan
from txlplan.workload import Workload

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
SYSTEM = SystemProfile(
    id="box",
    name="Box",
    kind="cloud",
    device="gpu",
    n_devices=4,
    prices=(Price(kind="on-demand", rent_usd_per_h=12.0, date="2026-01-01", source="test"),),
)
CLUSTER = Cluster(system=SYSTEM, device=DEVICE)
STACK = StackProfile(id="plain", family="txlplan", version="0", context_bytes=300 * 2**20)


def _with_memory(bytes_: int) -> Cluster:
    return replace(CLUSTER, device=replace(DEVICE, memory_bytes=bytes_))


@given(
    batch=st.integers(1, 48),
    memory_mib=st.integers(330, 700),
    objective=st.sampled_from(["fastest", "cheapest", "least-energy"]),
)
@settings(max_examples=15, deadline=None)
def test_the_choice_equals_brute_force(batch: int, memory_mib: int, objective: Any) -> None:
    workload = Workload(model=MODEL, global_batch=batch, objective=objective)
    cluster = _with_memory(memory_mib * 2**20)
    scores: dict[Plan, float] = {}
    for candidate in Space().plans(workload, cluster):
        found = estimate(workload, cluster, STACK, [candidate])[0]
        if found.fits:
            seconds = 1 / found.tokens_per_s.value
            assert found.energy_j_per_step is not None
            joules = found.energy_j_per_step.value / (batch * MODEL.tgt_len)
            scores[candidate] = joules if objective == "least-energy" else seconds
    if not scores:
        with pytest.raises(NoPlanFitsError):
            plan(workload, cluster, STACK)
        return
    choice = plan(workload, cluster, STACK)
    assert scores[choice.plan] == pytest.approx(min(scores.values()), rel=1e-9)
    assert choice.n_fitting == len(scores)
    assert choice.plan.global_batch == batch
    assert all(other.behind >= 0 and other.difference for other in choice.runners_up)


def test_the_space_without_a_global_batch_takes_the_published_one() -> None:
    assert plan(Workload(model=replace(MODEL, published_batch=24)), CLUSTER, STACK).plan.global_batch == 24
    assert plan(Workload(model=MODEL), CLUSTER, STACK).plan.global_batch == 32


def test_inference_chooses_its_batch() -> None:
    choice = plan(Workload(model=MODEL, task="score"), CLUSTER, STACK)
    assert choice.plan.accumulation == 1
    assert choice.plan.micro_batch > 1


@pytest.mark.parametrize(
    ("space", "change"),
    [
        (Space(micro_batch=(256,), activation_checkpointing=("none",), data_parallel=(1,), precision=("fp32",)), "micro_batch"),
        (Space(micro_batch=(1,), data_parallel=(1,), precision=("fp32",)), "holds that plan"),
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
    stuck = Space(micro_batch=(256,), activation_checkpointing=("none",), data_parallel=(1,), precision=("fp32",))
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
    best = plan(workload, CLUSTER, STACK)
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
    plans = Space().plans(Workload(model=MODEL), cluster)
    assert {candidate.precision for candidate in plans} == {"fp32"}
    assert {candidate.threads for candidate in plans} == {1, 2, 4, 6}
    assert plan(Workload(model=MODEL), cluster, STACK).plan.threads == 6
