"""`txlplan bench` end to end: real workers on a tiny model, killed and resumed."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_record

from txlplan import resources
from txlplan.benchmarks import cases, create, matrix_of
from txlplan.records import open_store
from txlplan.workload import Workload

MODEL = "n_layer = 1\nd_model = 16\nn_head = 2\nd_head = 8\nd_inner = 32\nvocab_size = 40\ntgt_len = 8\nmem_len = 8\n"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.toml").write_text(MODEL)
    return ["bench", "--model", str(tmp_path / "tiny.toml"), "--threads", "1", "--steps", "4", "--warmup-steps", "1"]


def test_killed_benchmark_goes_on_where_it_was(txlplan: Any, options: list[str]) -> None:
    arguments = [sys.executable, "-m", "txlplan", *options, "--micro-batch", "2,4", "--repeats", "1"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    bench_id = process.stderr.readline().split()[1]
    give_up = time.monotonic() + 60
    while not [record for record in open_store().list(parent=bench_id) if record.outcome == "ok"]:
        assert time.monotonic() < give_up
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    resumed = txlplan("bench", "--resume", bench_id, "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert "[2/2]" in resumed.stderr
    assert "[1/2]" not in resumed.stderr
    rows = resumed.json["rows"]
    assert [(row["case"]["plan"]["micro_batch"], row["repeats"]) for row in rows] == [(2, 1), (4, 1)]
    assert all(row["predicted_tokens_per_s"] > 0 and row["tokens_per_s"]["median"] > 0 for row in rows)
    good = [record for record in open_store().list(kind="bench", parent=bench_id) if record.outcome == "ok"]
    assert [len(record.step_s) for record in good] == [5, 5]
    assert all(record.estimate is not None for record in good)

    again = txlplan("bench", "--resume", bench_id)
    assert again.exit_code == 0
    assert "tokens/s" in again.stdout
    assert "[" not in again.stderr


def test_score_is_measured_on_weights_of_its_own_which_are_made_again_where_their_saving_was_killed(
    txlplan: Any, options: list[str]
) -> None:
    measured = txlplan(*options, "--task", "score", "--micro-batch", "4", "--repeats", "1", "--json")
    assert measured.exit_code == 0, measured.stderr
    found = measured.json
    assert [row["repeats"] for row in found["rows"]] == [1]
    (events_file,) = (resources.user_data() / "benches" / found["id"] / "weights").rglob("events.jsonl")
    begun = [line for line in events_file.read_text().splitlines(keepends=True) if '"started"' in line]
    shutil.rmtree(events_file.parent / "checkpoints")
    (events_file.parent / "checkpoints" / ".step-000000001.partial").mkdir(parents=True)
    events_file.write_text("".join(begun))
    for repeat in open_store().list(kind="bench", parent=found["id"]):
        open_store().put(dataclasses.replace(repeat, outcome="failed", message="killed"))
    again = txlplan("bench", "--resume", found["id"], "--json")
    assert again.exit_code == 0, again.stderr
    assert again.json["rows"][0]["repeats"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--model"),
        (("--model", "nothing-like-it"), "nothing-like-it"),
        (("--model", "demo-bytes", "--micro-batch", "4,x"), "4,x"),
        (("--model", "demo-bytes", "--micro-batch", "0"), "micro_batch = 0"),
        (("--model", "demo-bytes", "--precision", "fp33"), "precision"),
        (("--model", "demo-bytes", "--repeats", "0"), "repeats"),
        (("--resume", "nope"), "no benchmark 'nope'"),
        (("--resume", "nope", "--steps", "3"), "leave the rest out"),
        (("nowhere.toml",), "no such file"),
        (("--model", "demo-bytes", "--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_named(txlplan: Any, arguments: tuple[str, ...], said: str) -> None:
    result = txlplan("bench", *arguments)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert "bug" not in result.stderr


def test_against_an_earlier_benchmark(txlplan: Any, tmp_path: Path) -> None:
    """A benchmark whose one repeat is on record already, against itself, and against a run a hundred times as fast."""
    (tmp_path / "tiny.toml").write_text(MODEL)
    matrix = matrix_of({"model": [str(tmp_path / "tiny.toml")], "threads": [1], "micro_batch": [2], "repeats": 1}, "test")
    create("again", matrix)
    (case,) = cases(matrix, cores=1)
    record = make_record(1, steps=20, kind="bench", parent="again", plan=case.plan, workload=Workload(model=case.model))
    store = open_store()
    store.put(record)
    same = txlplan("bench", "--resume", "again", "--against", record.id, "--fail-on", "5%", "--json")
    assert same.exit_code == 0, same.stderr
    (change,) = same.json["against"]
    assert change["low"] <= change["change"] == 0.0 <= change["high"]
    assert change["notes"] == ["1 repeats before and 1 now: the interval holds little of how runs differ"]
    store.put(replace(record, id=f"{record.id}0", parent="quick", step_s=tuple(step_s / 100 for step_s in record.step_s)))
    slower = txlplan("bench", "--resume", "again", "--against", "quick", "--fail-on", "5%")
    assert slower.exit_code == 5
    assert "since then, tiny, " in slower.stdout
    assert "95 % interval -" in slower.stdout
    assert "failed: 1 of 1 cases are slower than before by more than 5.0%" in slower.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fail-on", "5%"), "--fail-on without --against"),
        (("--against", "x", "--fail-on", "much"), "no share"),
        (("--against", "x", "--fail-on", "-5%"), "no share"),
        (("--against", "no-such-record"), "no-such-record"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_at_once(
    txlplan: Any, options: list[str], arguments: Any, said: str
) -> None:
    result = txlplan(*options, *arguments)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert not open_store().list()
