"""`txlplan calibrate`: what it writes, what it refuses, and that estimates then use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_device, make_model, make_record

from txlplan import resources
from txlplan.config import to_toml
from txlplan.cost import estimate
from txlplan.hardware import Cluster, EfficiencyPoint, StackProfile, SystemProfile, stacks
from txlplan.plan_file import Plan
from txlplan.records import Record, open_store
from txlplan.workload import Workload

DEVICE = make_device(id="bench-cpu", name="Bench CPU")
SYSTEM = SystemProfile(
    id="bench-cpu", name="Bench", kind="local", device="bench-cpu", n_devices=1, stack="bench-cpu-stack", provenance="measured"
)
STACK = StackProfile(
    id="bench-cpu-stack",
    family="txlplan",
    version="0",
    measured_device="bench-cpu",
    host_op_s=6e-6,
    context_bytes=300 * 2**20,
    allocator_waste=0.4,
    efficiency=(
        EfficiencyPoint(kind="gemm", dtype="fp32", work=1e8, utilisation=0.8, m=1024, n=256, k=256),
        EfficiencyPoint(kind="elementwise", dtype="fp32", work=1e6, utilisation=0.7),
    ),
)


@pytest.fixture(autouse=True)
def profiles(home: Path) -> None:
    for directory, profile in (("devices", DEVICE), ("systems", SYSTEM), ("stacks", STACK)):
        path = resources.user("profiles") / directory / f"{profile.id}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_toml(profile), encoding="utf-8")


def ran(truth: StackProfile, batches: tuple[int, ...]) -> list[Record]:
    """Records of a machine that behaves as `truth`."""
    cluster, found = Cluster(system=SYSTEM, device=DEVICE), []
    for batch in batches:
        workload, plan = Workload(model=make_model()), Plan(micro_batch=batch)
        took = estimate(workload, cluster, truth, [plan])
        step_s = float(took.step_s[0])
        found.append(
            replace(
                make_record(seed=batch),
                id=f"run-{batch}",
                workload=workload,
                plan=plan,
                system=SYSTEM.id,
                stack=STACK.id,
                device=DEVICE,
                step_s=(2 * step_s,) + (step_s,) * 5,
                warmup_steps=1,
                tokens_per_s=float(took.tokens_per_s[0]),
                peak_memory_bytes=round(float(took.peak_memory_bytes[0])),
            )
        )
    return found


def test_the_loop_closes(txlplan: Any, tmp_path: Path) -> None:
    truth = replace(STACK, host_op_s=12e-6, context_bytes=400 * 2**20)
    open_store().put_all(ran(truth, (1, 2, 8, 32)))
    own = stacks.path("bench-cpu-stack")
    before = own.read_text(encoding="utf-8")

    tried = txlplan("calibrate", "store", "--system", "bench-cpu", "--dry-run", "--json")
    assert tried.exit_code == 0, tried.stdout
    assert tried.json["file"] is None
    assert tried.json["observations"] == 4
    assert tried.json["time"]["left_out"] < tried.json["time"]["before"]
    assert tried.json["fitted_scalars"] <= 6
    told = txlplan("calibrate", "store", "--system", "bench-cpu", "--dry-run").stderr
    assert told.splitlines()[-1] == "next: txlplan calibrate store --system bench-cpu"
    assert own.read_text(encoding="utf-8") == before

    elsewhere = tmp_path / "mine.toml"
    assert txlplan("calibrate", "store", "--system", "bench-cpu", "--out", elsewhere).exit_code == 0
    assert stacks.get(str(elsewhere)).provenance == "calibrated"
    assert own.read_text(encoding="utf-8") == before

    done = txlplan("calibrate", "store", "--system", "bench-cpu")
    assert done.exit_code == 0
    assert "kept" in done.stdout
    assert str(own) in done.stderr
    assert own.with_name(f"{own.name}.before").read_text(encoding="utf-8") == before
    (later,) = ran(truth, (4,))
    (predicted,) = estimate(later.workload, Cluster(system=SYSTEM, device=DEVICE), stacks.get(STACK.id), [later.plan])
    assert predicted.tokens_per_s.value == pytest.approx(later.tokens_per_s, rel=0.04)


def test_a_fit_that_is_no_better_writes_nothing(txlplan: Any) -> None:
    open_store().put_all(ran(STACK, (1, 2, 8, 32)))
    before = stacks.path("bench-cpu-stack").read_text(encoding="utf-8")
    result = txlplan("calibrate", "store", "--system", "bench-cpu")
    assert result.exit_code == 5
    assert "no better" in result.stderr
    assert stacks.path("bench-cpu-stack").read_text(encoding="utf-8") == before


def test_too_few_runs_and_a_source_that_holds_none(txlplan: Any) -> None:
    open_store().put_all(ran(STACK, (1, 2)))
    result = txlplan("calibrate", "store", "--system", "bench-cpu")
    assert result.exit_code == 2
    assert "2 usable observations" in result.stderr
    assert txlplan("calibrate", "runs.json", "--system", "bench-cpu").exit_code == 2
