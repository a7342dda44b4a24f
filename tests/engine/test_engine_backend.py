"""What a plan sets of its process, and the next one sets again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from txlplan.choices import Precision, Task
from txlplan.engine import backend as backend_module
from txlplan.engine.backend import Backend, as_planned
from txlplan.engine.world import World
from txlplan.model import models as presets
from txlplan.nn._widened import has_fast_bf16
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, write_plan_file
from txlplan.workload import Workload

BACKEND = Backend(device=torch.device("cpu"), precision="fp32", world=World())


def _product_is_widened() -> bool:
    """Of its many calls of torch, a widened product makes some in fp32."""
    a = torch.ones(8, 8).bfloat16()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.mm(a, a)
    return any(event.key == "aten::to" for event in profile.key_averages())


@pytest.mark.parametrize("other", ["fp32", "fp16"])
def test_products_of_bf16_are_widened_for_plans_in_bf16_alone(other: Precision) -> None:
    for precision in ("fp32", "bf16", other, "bf16", other):
        assert as_planned(BACKEND, Plan(micro_batch=1, precision=precision), "train").precision == precision
        assert _product_is_widened() is (precision == "bf16" and not has_fast_bf16())


@pytest.mark.parametrize(
    ("task", "compiled", "widens"),
    [("train", False, True), ("score", False, False), ("generate", False, False), ("generate", True, True)],
)
@pytest.mark.parametrize("units", [True, False])
def test_a_cpu_without_units_for_bf16_reads_in_fp32(
    monkeypatch: pytest.MonkeyPatch, task: Task, compiled: bool, widens: bool, units: bool
) -> None:
    """But not compiled tokens, which read half the bytes."""
    monkeypatch.setattr(backend_module, "has_fast_bf16", lambda: units)
    found = as_planned(BACKEND, Plan(micro_batch=1, precision="bf16", compile=compiled), task)
    assert found.precision == ("bf16" if units or widens else "fp32")
    assert found.narrow_dtype == (torch.bfloat16 if units or widens else None)


def test_threads_are_the_plans() -> None:
    as_planned(BACKEND, Plan(micro_batch=1, threads=2), "train")
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot take such numbers for zero")
def test_numbers_too_small_to_be_normal_are_zero_in_every_thread() -> None:
    """In a process of its own: threads that are there already keep what they do."""
    program = """
import torch
from txlplan.engine.backend import flush_tiny_numbers
small = torch.full((1 << 22,), 1e-39)
kept = int((small.view(torch.int32) != 0).sum())
flush_tiny_numbers()
torch.set_num_threads(2)
made = torch.mul(small, 0.5)
print(kept, int((made.view(torch.int32) != 0).sum()))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert said.split() == [str(1 << 22), "0"]


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot take such numbers for zero")
def test_a_worker_that_is_a_process_takes_them_for_zero(tmp_path: Path) -> None:
    """Also one that then fails: the data are not there."""
    plan_file = PlanFile(
        system="s",
        stack="s",
        workload=Workload(model=presets.get("demo-bytes")),
        plan=Plan(micro_batch=1),
        data=DataSettings(directory=str(tmp_path / "none")),
        run=RunSettings(directory=str(tmp_path / "run"), device="cpu"),
    )
    write_plan_file(tmp_path / "plan.toml", plan_file)
    program = """
import runpy, sys
try:
    runpy.run_module("txlplan.engine.worker", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
import torch
print(int(torch.mul(torch.full((4,), 1e-39), 0.5).view(torch.int32).sum()))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "plan.toml")]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["0"]
    assert "none" in ran.stderr
