"""`txlplan run` end to end: real data, real workers, tiny models."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_record

from txlplan import resources
from txlplan.cli import _run, _run_output
from txlplan.cli._output import Output, Stopped
from txlplan.data import prepare
from txlplan.detection import this_machine
from txlplan.engine import events
from txlplan.estimates import Range
from txlplan.launcher import Session
from txlplan.plan_file import read_plan_file, write_plan_file
from txlplan.records import open_store

MODEL = """
n_layer = 1
d_model = 16
n_head = 2
d_head = 8
d_inner = 32
vocab_size = 256
tgt_len = 8
mem_len = 8
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and 40 kB of prepared bytes."""
    directory = tmp_path_factory.mktemp("shared")
    (directory / "tiny.toml").write_text(MODEL)
    lines = (f"{number} is followed by {number + 1}.\n" for number in range(1500))
    (directory / "text.txt").write_text("".join(lines))
    prepare([directory / "text.txt"], directory / "data", processes=1)
    return directory


@pytest.fixture
def train(shared: Path, tmp_path: Path) -> list[object]:
    """Options of a training run of 10 steps on one thread's worth of work."""
    return [
        *("run", "--model", shared / "tiny.toml", "--data", shared / "data", "--tokens", "320", "--global-batch", "4"),
        *("--precision", "fp32", "--threads", "1", "--directory", tmp_path / "run"),
    ]


@pytest.mark.parametrize("attention", ["fast", "reference"])
def test_attention_is_computed_as_asked(txlplan: Any, train: list[object], attention: str) -> None:
    trained = txlplan(*train, "--attention", attention, "--json")
    assert trained.exit_code == 0, trained.stderr
    assert trained.json["plan"]["attention"] == attention


def test_compiled_attention_is_refused_without_a_compiler(
    txlplan: Any, train: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if this_machine()[1].kind != "cpu":
        pytest.skip("such attention is what CPUs run")
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused = txlplan(*train, "--attention", "compiled")
    assert refused.exit_code == 2
    assert "no C++ compiler is found" in refused.stderr
    assert "--attention fast needs none" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_compiled_attention_is_not_in_bf16_where_a_limit_of_instructions_leaves_that_out(
    txlplan: Any, train: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if this_machine()[1].kind != "cpu" or resources.cpp_compiler() is None:
        pytest.skip("needs a CPU and a C++ compiler")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    asked = [*(each for each in train if each not in ("--precision", "fp32")), "--attention", "compiled", "--dry-run"]
    planned = txlplan(*asked, "--json")
    assert planned.exit_code == 0, planned.stderr
    assert planned.json["plan_file"]["plan"]["precision"] == "fp32"
    refused = txlplan(*asked, "--precision", "bf16")
    assert refused.exit_code == 2
    assert "--attention fast needs none" in refused.stderr


def test_train_score_generate_and_fail_at_a_damaged_checkpoint(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    trained = txlplan(*train, "--json")
    assert trained.exit_code == 0, trained.stderr
    record = trained.json
    assert record["outcome"] == "ok"
    assert len(record["step_s"]) == 10
    assert record["estimate"]["tokens_per_s"]["value"] > 0
    assert record["workload"]["optimization"]["clip_norm"] == 0.25
    assert record["peak_memory_bytes"] > 10**7
    assert "predicted" in trained.stderr
    before_it_started = trained.stderr.partition("step 1/10")[0]
    assert re.search(r"run: fp32, micro-batch \d.*, 1 thread, (fast|reference|compiled) attention\n", before_it_started)

    scored = txlplan("run", "--task", "score", "--checkpoint", tmp_path / "run", "--threads", "1")
    assert scored.exit_code == 0, scored.stderr
    assert "perplexity" in scored.stdout
    assert "bits per character" in scored.stdout

    generate = ("run", "--task", "generate", "--checkpoint", tmp_path / "run", "--tokens", "12", "--prompt", "1 is ")
    generated = txlplan(*generate, "--temperature", "0", "--seed", "3", "--threads", "1")
    assert generated.exit_code == 0, generated.stderr
    assert 1 <= len(generated.stdout.rstrip("\n")) <= 12
    assert [r.workload.task for r in open_store().list()] == ["generate", "score", "train"]

    _, whole, run = open_store().list()
    assert (run.weights_from, whole.weights_from) == (None, str(tmp_path / "run"))
    assert whole.may_use_weights_of(run)
    stopped = dataclasses.replace(whole, outcome="stopped", perplexity=None, bits_per_character=None)
    assert "test loss" in dict(_run_output._lines(whole))
    assert "test loss" not in dict(_run_output._lines(stopped)), "that of one step is no result"
    assert _run_output.next_command(stopped) is None
    assert _run_output.next_command(dataclasses.replace(run, outcome="stopped")) == f"txlplan run {tmp_path / 'run'} --resume"

    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    damaged = next(checkpoint.rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-8])
    failed = txlplan("run", "--task", "score", "--checkpoint", tmp_path / "run", "--json")
    assert failed.exit_code == 4
    assert failed.json["error"]["exit_code"] == 4
    assert str(checkpoint) in failed.json["error"]["message"]
    assert open_store().list()[0].outcome == "failed"


def test_two_processes_train_as_one_run(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    """Their loss is that of one process: tests/engine/test_engine_processes.py."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two processes need two cores")
    two = txlplan(*train, "--devices", "2")
    assert two.exit_code == 0, two.stderr
    assert read_plan_file(tmp_path / "run" / "plan.toml").run.runner == "torchrun"
    history = events.read(tmp_path / "run" / events.FILE_NAME)[0]
    assert [event.world_size for event in history if isinstance(event, events.Started)] == [2]
    assert [event.step for event in history if isinstance(event, events.Step)] == list(range(1, 11))


def test_dry_run_shows_the_command_and_starts_nothing(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    shown = txlplan(*train, "--dry-run", "--devices", "1", "--no-trials", "--schedule", "cosine")
    assert shown.exit_code == 0, shown.stderr
    again = shlex.split(shown.stderr.splitlines()[-1].removeprefix("next: txlplan "))
    assert set(again) == {*map(str, train), "--devices", "1", "--no-trials", "--schedule", "cosine"}
    assert "-m txlplan.engine.worker" in shown.stdout
    assert str(tmp_path / "run" / "plan.toml") in shown.stdout
    document = txlplan(*train, "--dry-run", "--json").json
    assert document["plan_file"]["workload"]["tokens"] == 320
    assert not (tmp_path / "run").exists()
    assert open_store().list() == []


def test_a_run_of_so_many_steps_says_what_is_left_and_how_to_go_on(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    part = txlplan(*train, "--steps", "4")
    assert part.exit_code == 0, part.stderr
    assert re.search(r"^left +6 steps to the end of the plan: --resume goes on$", part.stdout, re.MULTILINE)
    assert part.stderr.endswith(f"next: txlplan run {tmp_path / 'run'} --resume\n")
    assert txlplan("run", tmp_path / "run", "--resume", "--steps", "5", "--json").json["steps_left"] == 1
    whole = txlplan("run", tmp_path / "run", "--resume", "--steps", "5")
    assert "left " not in whole.stdout
    assert "--task score" in whole.stderr.splitlines()[-1]


def test_killed_run_goes_on_from_its_checkpoint(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    """kill -9 of the whole `txlplan run`, after a checkpoint was reported."""
    shown = txlplan(*train, "--dry-run", "--json")
    document = shown.json["plan_file"]
    path = _plan_file(document, tmp_path, tokens=32 * 5000, checkpoint_every_steps=5)
    supervisor = subprocess.Popen([sys.executable, "-m", "txlplan", "run", str(path)], stderr=subprocess.DEVNULL)
    directory = tmp_path / "run"
    give_up = time.monotonic() + 60
    while not any(isinstance(event, events.Saved) for event in events.read(directory / events.FILE_NAME)[0]):
        assert time.monotonic() < give_up
        time.sleep(0.1)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    resumed = txlplan("run", directory, "--resume", "--steps", "3", "--json")
    assert resumed.exit_code == 0, resumed.stderr
    history = events.read(directory / events.FILE_NAME)[0]
    again = [event for event in history if isinstance(event, events.Started)][1]
    saved = [event.step for event in history[: history.index(again)] if isinstance(event, events.Saved)]
    assert again.step == saved[-1] >= 5
    first, second = open_store().list()[::-1]
    assert (first.outcome, second.outcome, second.parent) == ("stopped", "ok", first.id)


def _plan_file(document: dict[str, Any], tmp_path: Path, *, tokens: int, checkpoint_every_steps: int) -> Path:
    from txlplan.config import from_plain
    from txlplan.plan_file import PlanFile

    document["workload"]["tokens"] = tokens
    document["run"]["checkpoint_every_steps"] = checkpoint_every_steps
    path = tmp_path / "endless.toml"
    write_plan_file(path, from_plain(PlanFile, json.loads(json.dumps(document)), "test"))
    return path


def test_plan_that_cannot_be_executed_says_so(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    document = txlplan(*train, "--dry-run", "--json").json["plan_file"]
    document["plan"]["tensor_parallel"] = 2
    path = _plan_file(document, tmp_path, tokens=320, checkpoint_every_steps=5)
    refused = txlplan("run", path)
    assert refused.exit_code == 2
    assert "data parallelism only" in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "{}/tiny.toml"), "--data"),
        (("--data", "{}/data"), "--model"),
        (("--model", "tinny", "--data", "{}/data"), "unknown model 'tinny'"),
        (("--model", "{}/tiny.toml", "--data", "{}/nothing"), "nothing"),
        (("--model", "original-wt103-base", "--data", "{}/data"), "vocab"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--tokens", "many"), "many"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--tokens", "-5"), "-5"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--learning-rate", "-1"), "learning_rate"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--learning-rate", "nan"), "learning_rate = nan"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--learning-rate", "inf"), "learning_rate = inf"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--seed", "-1"), "seed = -1"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--seed", str(2**32)), "less than 2^32"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--global-batch", "0"), "--global-batch"),
        (("--task", "generate", "--checkpoint", "{}/data", "--temperature", "nan"), "temperature"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--split", "trian"), "trian"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--top-k", "3"), "--top-k has no effect"),
        (("--task", "generate", "--checkpoint", "{}", "--attention", "fast"), "--attention has no effect on --task generate"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--devices", "4096"), "4096"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--runner", "slrm"), "slrm"),
        (("--model", "{}/tiny.toml", "--data", "{}/data", "--threads", "4096"), "threads = 4096"),
        (("--task", "score", "--data", "{}/data"), "--checkpoint"),
        (("--task", "score", "--checkpoint", "{}/nowhere"), "no such directory"),
        (("--task", "generate", "--checkpoint", "{}/data"), "plan.toml"),
        (("{}/nowhere.toml",), "no such file"),
        (("{}/tiny.toml",), "tiny.toml"),
        (("--resume",), "--resume"),
    ],
)
def test_bad_input_is_named(txlplan: Any, shared: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    given = [option.format(shared) for option in options]
    directory = [] if given == ["--resume"] else ["--directory", str(tmp_path / "run")]
    result = txlplan("run", *given, *directory)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert "bug" not in result.stderr
    assert result.stdout == ""
    assert open_store().list() == []


def test_option_beside_a_plan_file_is_refused(txlplan: Any, train: list[object], tmp_path: Path) -> None:
    document = txlplan(*train, "--dry-run", "--json").json["plan_file"]
    path = _plan_file(document, tmp_path, tokens=320, checkpoint_every_steps=5)
    refused = txlplan("run", path, "--global-batch", "8")
    assert refused.exit_code == 2
    assert "--global-batch has no effect" in refused.stderr


def test_a_run_stopped_during_a_trial_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Stopped):
        _run._finish(Output(as_json=True), Session(record=None, tuned=None), is_shown=False)
    assert json.loads(capsys.readouterr().out) == {
        "outcome": "stopped",
        "message": "stopped during a trial; nothing was trained",
        "trials": [],
    }


@pytest.mark.parametrize(("predicted", "said"), [(95.7, "4.3% too low"), (110.0, "10.0% too high")])
def test_the_side_of_an_error_is_said(predicted: float, said: str) -> None:
    shown = _run_output._beside(100.0, Range(value=predicted, low=0.0, high=200.0), "tokens")
    assert shown.endswith(f", {said})")


@pytest.mark.parametrize(
    ("steps", "memory_bytes", "said"),
    [
        (0, None, {"steps": "0", "peak memory": "not measured, nothing to compare (predicted 612 MiB)"}),
        (2, 640 << 20, {"steps": "2, all of them warm-up", "peak memory": "640 MiB (predicted 612 MiB, 4.4% too low)"}),
    ],
)
def test_what_an_early_stop_left_unmeasured_is_not_compared(steps: int, memory_bytes: int | None, said: dict[str, str]) -> None:
    record = make_record(steps=steps, outcome="stopped", tokens_per_s=None, peak_memory_bytes=memory_bytes)
    lines = dict(_run_output._lines(record))
    assert lines["speed"] == "not measured, nothing to compare (predicted 5,200 tokens/s)"
    assert {name: lines[name] for name in said} == said
