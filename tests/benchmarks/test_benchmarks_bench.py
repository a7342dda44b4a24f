"""What a benchmark does around its runs; the runs themselves are replaced."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from lock_holder import LATE, hold
from record_factory import make_estimate, make_record

from txlplan.benchmarks import Matrix, _bench, directory_of, run_bench
from txlplan.benchmarks._stability import Reference
from txlplan.estimates import Estimate
from txlplan.plan_file import PlanFile
from txlplan.records import Record

TINY = "n_layer = 1\nd_model = 16\nn_head = 2\nd_head = 8\nd_inner = 32\nvocab_size = 40\ntgt_len = 8\nmem_len = 8\n"


def test_repeat_waits_for_the_worker_of_a_killed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    directory = directory_of("b") / "runs" / "001-tiny"
    holders: list[subprocess.Popen[str]] = []
    locks: list[int] = []

    def estimate(*_: Any) -> Estimate:
        """The last thing before the directory is touched."""
        holders.append(hold(directory))
        locks.append((directory / ".lock").stat().st_ino)
        return make_estimate()

    def measure() -> Reference:
        assert holders[0].wait(timeout=0.5) == 0, "the machine is looked at while nothing of ours runs"
        return Reference(product_s=0.01, busy=0.0, load_1min=None)

    def execute(plan_file: PlanFile, **_: Any) -> Record:
        assert plan_file.run.directory == str(directory)
        assert [path.name for path in directory.iterdir()] == [".lock"]
        return make_record()

    monkeypatch.setattr(_bench.Preparation, "estimate", estimate)
    monkeypatch.setattr(_bench._stability, "measure", measure)
    monkeypatch.setattr(_bench, "execute", execute)
    run_bench("b", Matrix(model=(str(tmp_path / "tiny.toml"),), threads=(1,), repeats=1))
    assert (directory / ".lock").stat().st_ino == locks[0]
    assert not (directory / LATE).exists()
