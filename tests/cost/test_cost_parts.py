"""Parts of a stage against the whole stream: the walk of `_memory`, sums over operations, and the split of layers."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txlplan.cost import Settings, build, estimate
from txlplan.cost._memory import walk
from txlplan.cost._op_stream import FIGURES, Phase
from txlplan.cost._stages import split
from txlplan.cost._template import Template
from txlplan.cost._time import REGIONS, step_time
from txlplan.hardware import Cluster, StackProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import Plan
from txlplan.workload import Optimization, Workload

MODELS = st.builds(
    ModelConfig,
    id=st.just("m"),
    n_layer=st.integers(1, 4),
    d_model=st.sampled_from([32, 64]),
    n_head=st.sampled_from([2, 4]),
    d_head=st.sampled_from([8, 16]),
    d_inner=st.sampled_from([64, 128]),
    vocab_size=st.just(1000),
    cutoffs=st.sampled_from([(), (200, 600)]),
    div_val=st.sampled_from([1, 2]),
    tgt_len=st.sampled_from([8, 16]),
    mem_len=st.sampled_from([0, 16]),
    dropout=st.sampled_from([0.0, 0.1]),
    norm=st.sampled_from(["pre", "post"]),
)


@given(
    model=MODELS,
    batch=st.integers(1, 600),
    kind=st.sampled_from(["none", "full"]),
    precision=st.sampled_from(["fp32", "fp16"]),
    implementation=st.sampled_from(["reference", "published"]),
    task=st.sampled_from(["train", "score", "generate"]),
    accumulation=st.integers(1, 2),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_add_up_to_the_stream_and_to_its_walk(
    model: ModelConfig, batch: int, kind: Any, precision: Any, implementation: Any, task: Any, accumulation: int, gpus: Cluster
) -> None:
    stack = StackProfile(id="s", family="f", version="0", implementation=implementation, context_bytes=1)
    training = task == "train"
    workload = Workload(model=model, task=task, optimization=Optimization(optimizer="lamb"))
    plan = Plan(
        micro_batch=batch,
        precision=precision,
        accumulation=accumulation if training else 1,
        activation_checkpointing=kind if training else "none",
    )
    found = estimate(workload, gpus, stack, [plan])
    stream = build(Settings.of(workload, gpus.device, stack, plan), np.array([float(batch)]))
    peak = walk(stream, gradients_exist=plan.accumulation > 1)
    terms = {term.name: term.value for term in found[0].part("memory")}
    walked = sum(terms.get(name, 0.0) for name in ("saved activations", "gradients", "largest transient"))
    assert walked == pytest.approx(float(peak.total_bytes[0]), rel=1e-9)
    time = step_time(stream, gpus.device, stack)

    def region_s(region: str, *phases: Phase, more: int = 0) -> float:
        """Of some phases, and `more` times the adding of gradients."""
        device_s, launches = (
            stream.total(figure, *phases) + more * stream.total(figure, "accumulation")
            for figure in (time.op_s, stream.dispatched)
        )
        return float(time.region_s(region, device_s, launches)[0])

    chunk_s = sum(region_s(region, *REGIONS[region]) for region in ("forward", "backward"))
    update_s = region_s("update", "update", more=plan.accumulation - 1)
    assert found.step_s[0] == pytest.approx(plan.accumulation * chunk_s + update_s, rel=1e-9)


@given(model=MODELS, batch=st.integers(1, 5000), tensor=st.sampled_from([1, 2]), context=st.sampled_from([1, 2]))
@settings(deadline=None, max_examples=25)
def test_a_template_is_the_stream_at_every_micro_batch(model: ModelConfig, batch: int, tensor: int, context: int) -> None:
    chosen = Settings(model=model, optimization=Optimization(), tensor_parallel=tensor, context_parallel=context)
    sizes = np.array([float(batch), 2.0 * batch])
    wanted, found = build(chosen, sizes), Template(chosen).stream(sizes)
    for name in FIGURES:
        assert np.allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-6), name


def test_tensor_and_context_parallel_devices_share_the_work(tiny_model: ModelConfig) -> None:
    """Products of the layers are halved; positions are projected by every device that shares the context."""

    def layer_flops(**shares: int) -> dict[str, float]:
        stream = build(Settings(model=tiny_model, optimization=Optimization(), **shares), np.ones(1))  # type: ignore[arg-type]
        names = [name for name, section in zip(stream.names, stream.sections, strict=True) if section == "layers"]
        return {name: float(stream.flops[stream.names.index(name), 0]) for name in names}

    whole, tensor, context = layer_flops(), layer_flops(tensor_parallel=2), layer_flops(context_parallel=2)
    for name, flops in whole.items():
        assert tensor[name] == flops / 2
        assert context[name] == (flops if name == "positions" else flops / 2)


@given(
    times=st.tuples(st.floats(0, 10), st.floats(0.1, 3), st.floats(0, 10)),
    stages=st.integers(1, 5),
    n_layer=st.integers(5, 9),
)
@settings(deadline=None, max_examples=60)
def test_the_split_is_the_best_of_all(times: tuple[float, float, float], stages: int, n_layer: int) -> None:
    embedding, layer, loss = times

    def slowest(layers: tuple[int, ...]) -> float:
        beside = [0.0] * len(layers)
        beside[0] += embedding
        beside[-1] += loss
        return max(extra + count * layer for extra, count in zip(beside, layers, strict=True))

    cuts = combinations(range(1, n_layer), stages - 1)
    every = [tuple(b - a for a, b in zip((0, *cut), (*cut, n_layer), strict=True)) for cut in cuts]
    best = min(slowest(layers) for layers in every)
    arrays = (np.array([value]) for value in times)
    found = split(n_layer, np.array([stages]), np.array([1]), *arrays)
    first, inner, last = int(found.first[0]), int(found.inner[0]), int(found.last[0])
    if stages == 1:
        assert first == n_layer
        return
    chosen = max(embedding + first * layer, loss + last * layer, inner * layer if stages > 2 else 0.0)
    assert chosen == pytest.approx(best)
    rest = n_layer - first - last
    assert rest == 0 if stages == 2 else inner == -(-rest // (stages - 2))


@given(
    forward=st.lists(st.floats(0.5, 1.0), min_size=2, max_size=5),
    ratio=st.floats(1.0, 3.0),
    steps=st.integers(1, 12),
)
@settings(deadline=None, max_examples=60)
def test_a_pipeline_takes_as_long_as_its_schedule_played_out(forward: list[float], ratio: float, steps: int) -> None:
    """One forward and one backward after another, played out stage by stage: exact for equal stages and for one micro-batch,
    and never shorter than the schedule where stages differ."""
    backward = [ratio * seconds for seconds in forward]
    total = [one + other for one, other in zip(forward, backward, strict=True)]
    formula = (steps - 1) * max(total) + sum(total)
    played = _play(forward, backward, steps)
    assert max(steps * max(total), sum(total)) <= played * (1 + 1e-9)
    assert played <= formula * (1 + 1e-9)
    assert _play(forward, backward, 1) == pytest.approx(sum(total))
    equal = _play([1.0] * len(forward), [ratio] * len(forward), steps)
    assert equal == pytest.approx((steps - 1 + len(forward)) * (1 + ratio))


def test_the_bubble_of_a_plan_is_that_formula(gpus: Cluster, tiny_model: ModelConfig) -> None:
    workload = Workload(model=replace(tiny_model, n_layer=8))
    stack = StackProfile(id="s", family="f", version="0")
    plan = Plan(micro_batch=4, accumulation=6, pipeline_parallel=4)
    found = estimate(workload, gpus, stack, [plan]).single
    assert found is not None
    first, inner, last = (float(position.time.total_s[0]) for position in found.positions)
    layers = [float(position.stage.layers[0]) for position in found.positions]
    stages = [first, *[inner] * round((8 - layers[0] - layers[2]) / layers[1]), last]
    wanted = (plan.accumulation - 1) * max(stages) + sum(stages)
    busy_s = plan.accumulation * max(stages)
    assert busy_s + float(found.bubble_s[0]) == pytest.approx(wanted, rel=1e-9)
    interleaved = estimate(workload, gpus, stack, [replace(plan, accumulation=8, virtual_stages=2)]).single
    whole = estimate(workload, gpus, stack, [replace(plan, accumulation=8)]).single
    assert interleaved is not None
    assert whole is not None
    assert interleaved.bubble_s[0] < whole.bubble_s[0]
    assert interleaved.positions[0].held.saved_bytes[0] > whole.positions[0].held.saved_bytes[0]


def _play(forward: list[float], backward: list[float], steps: int) -> float:
    """The 1F1B schedule: each stage does its warm-up forwards, then alternates; an operation waits for its input."""
    stages = len(forward)
    orders = []
    for stage in range(stages):
        warm = min(stages - stage, steps)
        order = [("f", micro) for micro in range(warm)]
        for micro in range(steps):
            order.append(("b", micro))
            if warm + micro < steps:
                order.append(("f", warm + micro))
        orders.append(order)
    done: dict[tuple[str, int, int], float] = {}
    free, place = [0.0] * stages, [0] * stages
    while any(place[stage] < len(orders[stage]) for stage in range(stages)):
        for stage in range(stages):
            while place[stage] < len(orders[stage]):
                what, micro = orders[stage][place[stage]]
                before = (what, stage - 1, micro) if what == "f" else (what, stage + 1, micro)
                first = stage == 0 if what == "f" else stage == stages - 1
                ready = done.get(before, 0.0 if first else None)
                if ready is None:
                    break
                free[stage] = max(free[stage], ready) + (forward if what == "f" else backward)[stage]
                done[(what, stage, micro)] = free[stage]
                place[stage] += 1
    return max(free)
