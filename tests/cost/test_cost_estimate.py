"""Estimates: arrays equal scalars, terms add up, and nothing moves the wrong way."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_factory import SMALL_GPU

from txlplan.choices import Precision, Task
from txlplan.cost import estimate
from txlplan.cost._energy import energy_j_per_step
from txlplan.cost._ranges import time_log_sd
from txlplan.errors import InputError
from txlplan.estimates import Range
from txlplan.hardware import Cluster, Link, Spread, StackProfile, SystemProfile, devices, stacks, systems
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload

MODEL = ModelConfig(
    id="m", n_layer=3, d_model=64, n_head=4, d_head=16, d_inner=128, vocab_size=500, tgt_len=32, mem_len=32, dropout=0.1
)
SYSTEM = SystemProfile(
    id="box",
    name="Box",
    kind="server",
    device="gpu",
    n_devices=8,
    inter_node=Link(kind="infiniband", bandwidth_bytes_per_s=25e9),
    intra_node=Link(kind="nvswitch2", bandwidth_bytes_per_s=300e9),
)
CLUSTER = Cluster(system=SYSTEM, device=SMALL_GPU, n_nodes=12)
STACK = StackProfile(id="plain", family="txlplan", version="0")
PLANS = st.builds(
    Plan,
    micro_batch=st.integers(1, 64),
    accumulation=st.integers(1, 5),
    precision=st.sampled_from(["fp32", "fp16"]),
    data_parallel=st.integers(1, 8),
    activation_checkpointing=st.sampled_from(["none", "attention", "feed-forward", "full"]),
    tensor_parallel=st.sampled_from([1, 2]),
    pipeline_parallel=st.sampled_from([1, 2, 3]),
    context_parallel=st.sampled_from([1, 2]),
    zero_stage=st.integers(0, 3),
    optimizer_precision=st.sampled_from(["fp32", "bf16"]),
    offload=st.sampled_from(["none", "optimizer"]),
)


@pytest.mark.no_cover
@given(plans=st.lists(PLANS, min_size=1, max_size=12))
@settings(deadline=None, max_examples=30)
def test_arrays_equal_scalars_to_the_last_bit_and_terms_add_up(plans: list[Plan]) -> None:
    workload = Workload(model=MODEL)
    together = estimate(workload, CLUSTER, STACK, plans)
    for index, plan in enumerate(plans):
        alone = estimate(workload, CLUSTER, STACK, [plan])[0]
        found = together[index]
        assert found == alone
        assert found.step_s.value == together.step_s[index]
        assert sum(term.value for term in found.part("time")) == pytest.approx(found.step_s.value)
        assert sum(term.value for term in found.part("memory")) == pytest.approx(found.peak_memory_bytes.value)
        assert found.tokens_per_s.low < found.tokens_per_s.value < found.tokens_per_s.high
        assert found.mfu is not None
        assert 0 < found.mfu < 1


@pytest.mark.no_cover
@given(plan=PLANS.filter(lambda plan: plan.data_parallel < 5))
@settings(deadline=None, max_examples=30)
def test_a_larger_micro_batch_takes_more_memory_and_time(plan: Plan) -> None:
    larger = replace(plan, micro_batch=plan.micro_batch * 2)
    small, large = estimate(Workload(model=MODEL), CLUSTER, STACK, [plan, larger])
    assert large.peak_memory_bytes.value > small.peak_memory_bytes.value
    assert large.step_s.value >= small.step_s.value


@pytest.mark.no_cover
@given(plan=PLANS, kind=st.sampled_from(["attention", "feed-forward", "full"]), layers=st.integers(1, 2))
@settings(deadline=None, max_examples=30)
def test_checkpointing_trades_time_for_memory(plan: Plan, kind: Any, layers: int) -> None:
    """More of it is never faster, also not where it is of some layers only; with a large batch it takes less memory."""
    big = replace(plan, micro_batch=64 + plan.micro_batch, activation_checkpointing="none", pipeline_parallel=1)
    some = replace(big, activation_checkpointing=kind, checkpointed_layers=layers)
    every = replace(big, activation_checkpointing=kind)
    kept, part, again = estimate(Workload(model=MODEL), CLUSTER, STACK, [big, some, every])
    assert again.step_s.value > part.step_s.value > kept.step_s.value
    assert again.peak_memory_bytes.value < part.peak_memory_bytes.value < kept.peak_memory_bytes.value
    assert again.flops_per_step == kept.flops_per_step


def test_one_plan_is_quick_and_a_hundred_thousand_are_bearable() -> None:
    workload = Workload(model=MODEL)
    plans = [
        Plan(micro_batch=1 + index % 64, accumulation=1 + index // 64 % 50, data_parallel=1 + index % 8)
        for index in range(100_000)
    ]
    estimate(workload, CLUSTER, STACK, plans[:1])
    start = time.process_time()
    estimate(workload, CLUSTER, STACK, plans[:1])
    assert time.process_time() - start < 0.05
    start = time.process_time()
    assert len(estimate(workload, CLUSTER, STACK, plans)) == 100_000
    assert time.process_time() - start < 5.0


def test_accumulation_keeps_the_memory_of_every_chunk_and_all_gradients() -> None:
    once, twice = estimate(Workload(model=MODEL), CLUSTER, STACK, [Plan(micro_batch=8), Plan(micro_batch=8, accumulation=2)])
    terms = [{term.name: term.value for term in found.part("memory")} for found in (once, twice)]
    assert terms[1]["recurrent memory"] == 2 * terms[0]["recurrent memory"]
    assert terms[0]["recurrent memory"] == MODEL.n_layer * 8 * MODEL.mem_len * MODEL.d_model * 4
    assert terms[1]["gradients"] > terms[0].get("gradients", 0.0)


def test_optimizer_states() -> None:
    sizes = {}
    for name in ("adamw", "lamb", "adafactor"):
        workload = Workload(model=MODEL, optimization=Optimization(optimizer=name))  # type: ignore[arg-type]
        found = estimate(workload, CLUSTER, STACK, [Plan(micro_batch=8)])[0]
        sizes[name] = {term.name: term.value for term in found.part("memory")}
    assert sizes["adamw"]["optimizer states"] == 2 * sizes["adamw"]["parameters"] == sizes["lamb"]["optimizer states"]
    assert sizes["adafactor"]["optimizer states"] < 0.2 * sizes["adamw"]["optimizer states"]


def test_the_range_widens_where_the_stack_was_measured_elsewhere() -> None:
    spread = Spread(time_log_sd=0.05, memory_log_sd=0.02, source="test")
    elsewhere = replace(STACK, spread=spread, measured_device="other")
    found = estimate(Workload(model=MODEL), CLUSTER, elsewhere, [Plan(micro_batch=8)])[0]
    assert found.extrapolated
    assert found.step_s.high / found.step_s.value > 1.3
    assert any("other" in note for note in found.notes)


@pytest.mark.parametrize(("precision", "width", "told"), [("fp16", 66, True), ("fp16", 64, False), ("fp32", 66, False)])
def test_widths_that_fill_no_vectors_of_a_gpu_are_named(precision: Precision, width: int, told: bool) -> None:
    workload = Workload(model=replace(MODEL, d_model=width, d_inner=256))
    said = estimate(workload, CLUSTER, STACK, [Plan(micro_batch=8, precision=precision)])[0].notes
    assert any(note.endswith(f"multiple of 8: d_model {width}") for note in said) == told


@pytest.mark.parametrize(("task", "compiled"), [("score", False), ("generate", False), ("generate", True), ("train", False)])
def test_a_cpu_without_units_for_bf16_reads_in_fp32_and_is_said_to(task: Task, compiled: bool) -> None:
    """In as much time and memory as a plan in fp32; but not compiled tokens, nor what trains."""
    cpu = replace(devices.get("generic-cpu"), peak_flops_per_s={"fp32": 1e11, "bf16": 1.1e11})
    cluster, workload = Cluster(system=systems.get("generic-cpu"), device=cpu), Workload(model=MODEL, task=task)
    plans = [Plan(micro_batch=8, precision=precision, compile=compiled) for precision in ("fp32", "bf16")]
    fp32, bf16 = estimate(workload, cluster, stacks.get("txlplan-cpu"), plans)
    reads = task == "score" or (task == "generate" and not compiled)
    assert (bf16.step_s == fp32.step_s) is (bf16.peak_memory_bytes == fp32.peak_memory_bytes) is reads
    assert (bf16.mfu == fp32.mfu) is reads
    assert any("computes in fp32" in note for note in bf16.notes) is reads
    assert not any("computes in fp32" in note for note in fp32.notes)
    units = replace(cluster, device=replace(cpu, peak_flops_per_s={"fp32": 1e11, "bf16": 2e11}))
    assert not any("computes in fp32" in note for note in estimate(workload, units, stacks.get("txlplan-cpu"), plans)[1].notes)


def test_what_a_probe_doubted_is_said_and_makes_the_range_wider() -> None:
    sure = replace(STACK, spread=Spread(time_log_sd=0.05, memory_log_sd=0.02, source="test"), measured_device=CLUSTER.device.id)
    doubted = replace(sure, doubts="the machine was busy")
    assert time_log_sd(doubted, extrapolated=False) > 2 * time_log_sd(sure, extrapolated=False)
    said = estimate(Workload(model=MODEL), CLUSTER, doubted, [Plan(micro_batch=8)])[0].notes
    assert any("the machine was busy" in note for note in said)


def test_what_a_busy_device_draws_follows_what_its_units_reach() -> None:
    """A device that is busy all the time at 0.7 of its peaks: between 0.7 and all of what lies above idle."""
    step = Range(value=2.0, low=1.0, high=4.0)
    device = replace(SMALL_GPU, power_w=300.0, power_idle_w=40.0)
    found = energy_j_per_step(device, 3, step, 1.0, 0.7)
    assert found == Range(value=3 * 300 * 2.0, low=pytest.approx(3 * (40 + 0.7 * 260) * 1.0), high=3 * 300 * 4.0)
    waiting = energy_j_per_step(device, 3, step, 0.2, 0.7)
    assert waiting is not None
    assert waiting.low == pytest.approx(3 * (40 + 0.14 * 260))


def test_energy_lies_between_idle_and_rated_power() -> None:
    found = estimate(Workload(model=MODEL), CLUSTER, STACK, [Plan(micro_batch=8, data_parallel=2)])[0]
    assert found.energy_j_per_step is not None
    assert 2 * 0.15 * 300 * found.step_s.value <= found.energy_j_per_step.value <= 2 * 300 * found.step_s.value
    likely_w, low_w = (
        energy / step / 2
        for energy, step in (
            (found.energy_j_per_step.value, found.step_s.value),
            (found.energy_j_per_step.low, found.step_s.low),
        )
    )
    assert 45.0 < low_w < likely_w, "a device that computes is not idle"
    unknown = replace(CLUSTER, device=replace(SMALL_GPU, power_w=None))
    assert estimate(Workload(model=MODEL), unknown, STACK, [Plan(micro_batch=8)])[0].energy_j_per_step is None


@pytest.mark.parametrize("task", ["score", "generate"])
def test_inference(task: str) -> None:
    train = estimate(Workload(model=MODEL), CLUSTER, STACK, [Plan(micro_batch=8)])[0]
    found = estimate(Workload(model=MODEL, task=task), CLUSTER, STACK, [Plan(micro_batch=8)])[0]  # type: ignore[arg-type]
    assert found.step_s.value < train.step_s.value
    assert found.peak_memory_bytes.value < train.peak_memory_bytes.value
    names = {term.name for term in found.terms}
    assert names.isdisjoint({"optimizer", "gradients", "optimizer states", "all-reduce"})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(micro_batch=1, precision="bf16"), "has no bf16"),
        (Plan(micro_batch=1, data_parallel=97), "has 96 devices"),
        (Plan(micro_batch=1, data_parallel=48, tensor_parallel=4), "needs 192 devices"),
        (Plan(micro_batch=1, tensor_parallel=3), "does not divide n_head = 4"),
        (Plan(micro_batch=1, context_parallel=3), "does not divide tgt_len = 32"),
        (Plan(micro_batch=1, pipeline_parallel=4), "the model has 3 layers"),
        (Plan(micro_batch=1, pipeline_parallel=2, virtual_stages=2), "do not divide 3 layers"),
        (
            Plan(micro_batch=1, pipeline_parallel=3, accumulation=4, virtual_stages=1, compile=True),
            "no compiled step to train is known",
        ),
    ],
)
def test_plans_that_cannot_be_costed(plan: Plan, message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate(Workload(model=MODEL), CLUSTER, STACK, [plan])


def test_processes_on_one_cpu_share_its_cores_and_memory(cpus: Cluster, stack: StackProfile) -> None:
    alone, shared = estimate(Workload(model=MODEL), cpus, stack, [Plan(micro_batch=8), Plan(micro_batch=4, data_parallel=2)])
    assert shared.capacity_bytes == alone.capacity_bytes // 2
    assert shared.step_s.value > 0.5 * alone.step_s.value


def test_a_cpu_s_heap_is_half_as_much_smaller_as_layers_that_run_again_keep_less(cpus: Cluster, stack: StackProfile) -> None:
    def held(kind: str, waste: float) -> tuple[float, float]:
        plan = Plan(micro_batch=64, activation_checkpointing=kind)  # type: ignore[arg-type]
        terms = estimate(Workload(model=MODEL), cpus, replace(stack, allocator_waste=waste), [plan])[0].terms
        memory = {term.name: term.value for term in terms if term.quantity == "memory"}
        return sum(memory.values()), memory["allocator waste"]

    (plain, plain_waste), (again, again_waste) = (held(kind, 0.6) for kind in ("none", "full"))
    freed = (plain - plain_waste) - (again - again_waste)
    assert freed > 0
    assert plain - again == pytest.approx(0.5 * freed)
