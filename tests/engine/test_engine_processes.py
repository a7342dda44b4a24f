"""Workers as real processes: two that train together, signals, kill -9."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from txlplan.engine import checkpoint, events, tensor_files
from txlplan.engine.events import Evaluated, Finished, Saved, Started, Step
from txlplan.plan_file import write_plan_file

WORKER = [sys.executable, "-m", "txlplan.engine.worker"]
LONG_S = 240.0


def start(plan_file, *options, processes=1):
    """Start a worker (or several under torchrun); its process and its run directory."""
    directory = Path(plan_file.run.directory)
    write_plan_file(directory / "plan.toml", plan_file)
    command = [*WORKER, str(directory / "plan.toml"), *options]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}"]
        command = [*torchrun, "--master-addr=127.0.0.1", f"--master-port={_free_port()}", *command[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True), directory


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read(directory):
    return events.read(directory / events.FILE_NAME)[0]


def finish(process, directory):
    """Wait for the end; the exit code, the events and what was said."""
    _, said = process.communicate(timeout=LONG_S)
    return process.returncode, read(directory), said


def wait_for(directory, process, condition):
    """Wait until the events meet a condition."""
    end_s = time.monotonic() + LONG_S
    while not condition(read(directory)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end_s
        time.sleep(0.02)


def count(found, kind):
    return sum(isinstance(event, kind) for event in found)


def test_two_processes_give_the_loss_of_one(plan_of, work, tmp_path):
    shared = {"optimization": {"clip_norm": 1.0}, "data": {"evaluation_split": "valid"}}
    one = work(plan_of(plan={"micro_batch": 4, "accumulation": 2}, **shared))
    plan_file = plan_of(plan={"micro_batch": 2, "accumulation": 2, "data_parallel": 2}, **shared)
    plan_file = dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, directory=str(tmp_path / "two")))
    exit_code, found, said = finish(*start(plan_file, processes=2))
    assert exit_code == 0, said
    assert found[0] == dataclasses.replace(one.of(Started)[0], process_id=found[0].process_id, world_size=2)
    assert [event.loss for event in found if isinstance(event, Step)] == pytest.approx(one.losses, abs=1e-5)
    two = next(event for event in found if isinstance(event, Evaluated))
    assert two.loss == pytest.approx(one.of(Evaluated)[0].loss, abs=1e-5)
    assert found[-1].outcome == "ok"
    first, second = (checkpoint.newest(directory) for directory in (one.directory, tmp_path / "two"))
    assert tensors(first).keys() == tensors(second).keys()
    for name, tensor in tensors(first).items():
        torch.testing.assert_close(tensors(second)[name], tensor, rtol=1e-4, atol=1e-5)


def tensors(path):
    """Weights, optimizer states and recurrent memory of a checkpoint."""
    found = {
        name: torch.empty(shape, dtype=dtype)
        for name, (shape, dtype) in tensor_files.specifications(path).items()
        if not name.startswith("random/")
    }
    tensor_files.read(path, found)
    return found


def test_two_processes_resume_what_one_began_and_the_other_way_round(plan_of, work, tmp_path):
    whole = work(plan_of(steps=6))
    plan_file = plan_of(steps=6)
    halves = dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, directory=str(tmp_path / "halves")))
    first = work(halves, "--steps", "2")
    two = dataclasses.replace(halves, plan=dataclasses.replace(halves.plan, micro_batch=2, data_parallel=2))
    exit_code, found, said = finish(*start(two, "--resume", "--steps", "2", processes=2))
    assert exit_code == 0, said
    second = [event.loss for event in found if isinstance(event, Step)][2:]
    third = work(halves, "--resume")
    assert first.losses + second + third.losses == pytest.approx(whole.losses, abs=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_a_checkpoint(plan_of, work, number):
    plan_file = plan_of(steps=100_000)
    process, directory = start(plan_file)
    wait_for(directory, process, lambda found: count(found, Step) >= 3)
    process.send_signal(number)
    exit_code, found, said = finish(process, directory)
    assert exit_code == 0, said
    assert found[-1].outcome == "stopped"
    steps = count(found, Step)
    assert [event.step for event in found if isinstance(event, Saved)] == [steps]
    resumed = work(plan_file, "--resume", "--steps", "2")
    assert [event.step for event in resumed.of(Step)] == [steps + 1, steps + 2]


def test_a_signal_to_torchrun_stops_both_processes_with_a_checkpoint(plan_of):
    """Each of which keeps to CPUs of its own meanwhile, where there are two."""
    plan_file = plan_of(steps=100_000, plan={"micro_batch": 2, "data_parallel": 2, "threads": 1})
    process, directory = start(plan_file, processes=2)
    wait_for(directory, process, lambda found: count(found, Step) >= 3)
    if len(os.sched_getaffinity(0)) > 1:
        workers = [child for child in _children(process.pid) if "worker" in Path(f"/proc/{child}/cmdline").read_text()]
        one, other = (os.sched_getaffinity(child) for child in workers)
        assert len(one) == len(other) == 1
        assert one != other
    process.send_signal(signal.SIGTERM)
    _, found, said = finish(process, directory)
    assert isinstance(found[-1], Finished), said
    assert found[-1].outcome == "stopped"
    assert [event.step for event in found if isinstance(event, Saved)] == [count(found, Step)]


LOADED = """
import sys
from txlplan.engine.worker import main
print(main(sys.argv[1:]), "torch._dynamo" in sys.modules)
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: nothing is compiled")
def test_a_process_that_scores_by_compiled_code_loads_no_compiler(plan_of, work, tmp_path):
    trained, said = work(plan_of(steps=1)), []
    score = plan_of(steps=None, workload={"task": "score"}, data={"split": "valid"}, plan={"attention": "compiled"})
    for name in ("compiles", "finds it"):
        run = dataclasses.replace(score.run, directory=str(tmp_path / name), checkpoint=str(trained.directory))
        write_plan_file(tmp_path / name / "plan.toml", dataclasses.replace(score, run=run))
        command = [sys.executable, "-c", LOADED, str(tmp_path / name / "plan.toml"), "--steps", "1"]
        said.append(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONG_S, check=True).stdout.strip())
    assert said == ["0 True", "0 False"]


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: nothing is compiled")
def test_compiled_code_is_kept_in_the_cache_directory(plan_of, work, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    trained = work(plan_of(steps=1))
    asked = plan_of(
        workload={"task": "generate", "tokens": 1},
        plan={"micro_batch": 1, "compile": True},
        sampling={"prompt": "a"},
        run={"checkpoint": str(trained.directory)},
    )
    asked = dataclasses.replace(asked, run=dataclasses.replace(asked.run, directory=str(tmp_path / "text")))
    exit_code, _, said = finish(*start(asked))
    assert exit_code == 0, said
    assert list((tmp_path / "cache" / "txlplan" / "compiled").rglob("*.so"))


def test_kill_9_leaves_the_last_saved_checkpoint_usable(plan_of, work):
    plan_file = plan_of(steps=100_000, run={"checkpoint_every_steps": 5})
    process, directory = start(plan_file)
    wait_for(directory, process, lambda found: count(found, Saved) >= 3)
    process.kill()
    exit_code, found, _ = finish(process, directory)
    assert exit_code == -signal.SIGKILL
    saved = [event for event in found if isinstance(event, Saved)][-1]
    assert Path(saved.path).is_dir()
    resumed = work(plan_file, "--resume", "--steps", "3")
    assert resumed.finished.outcome == "ok"
    assert resumed.of(Started)[0].step >= saved.step


def test_the_death_of_one_process_ends_the_other_with_an_event(plan_of):
    plan_file = plan_of(steps=100_000, plan={"micro_batch": 2, "data_parallel": 2})
    process, directory = start(plan_file, processes=2)
    wait_for(directory, process, lambda found: count(found, Step) >= 2)
    first = next(event.process_id for event in read(directory) if isinstance(event, Started))
    other = next(
        child for child in _children(process.pid) if child != first and "worker" in Path(f"/proc/{child}/cmdline").read_text()
    )
    os.kill(other, signal.SIGKILL)
    exit_code, found, _ = finish(process, directory)
    assert exit_code != 0
    assert found[-1].outcome == "failed"
    assert "another process of this run is gone" in found[-1].message


def _children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("this kernel does not list child processes")
    return [int(child) for child in path.read_text().split()]
