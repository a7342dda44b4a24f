"""Bad input to the worker."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from txlplan.engine.worker import main
from txlplan.engine.world import World
from txlplan.errors import InputError


def test_a_missing_plan_file(tmp_path, capsys):
    assert main([str(tmp_path / "plan.toml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_an_unknown_key_in_the_plan_file(tmp_path, capsys):
    (tmp_path / "plan.toml").write_text('system = "x"\nstack = "y"\nsistem = "z"\n')
    assert main([str(tmp_path / "plan.toml")]) == 2
    said = capsys.readouterr().err
    assert "unknown key 'sistem'" in said
    assert "did you mean 'system'?" in said


def test_data_that_is_not_there(plan_of, work, tmp_path):
    plan_file = plan_of()
    plan_file = dataclasses.replace(plan_file, data=dataclasses.replace(plan_file.data, directory=str(tmp_path / "none")))
    ran = work(plan_file)
    assert ran.exit_code == 4
    assert str(tmp_path / "none") in ran.finished.message


def test_a_split_that_is_not_there(plan_of, work):
    assert "no split 'trian'" in work(plan_of(data={"split": "trian"})).finished.message


def test_a_vocabulary_larger_than_the_model_s(plan_of, work):
    ran = work(plan_of(model={"vocab_size": 100}))
    assert ran.exit_code == 4
    assert "256" in ran.finished.message


def test_a_device_that_is_not_there(plan_of, work):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "no CUDA device" in work(plan_of(run={"device": "cuda"})).finished.message


def test_more_processes_planned_than_started(plan_of, work):
    assert "plan.data_parallel = 2" in work(plan_of(plan={"data_parallel": 2})).finished.message


def test_a_prompt_without_a_token(plan_of, work, tmp_path):
    trained = work(plan_of(steps=1))
    plan_file = plan_of(workload={"task": "generate"}, sampling={"prompt": ""}, run={"checkpoint": str(trained.directory)})
    plan_file = dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, directory=str(tmp_path / "text")))
    assert "encodes to no token" in work(plan_file).finished.message


@pytest.mark.parametrize("environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}])
def test_a_nonsensical_environment(environment):
    with pytest.raises(InputError):
        World.from_environment(environment)


ALL = {9, 3, 8, 5}


@pytest.mark.parametrize(
    ("local_rank", "local_size", "threads", "own"),
    [(0, 2, 1, {3}), (1, 2, 1, {5}), (1, 2, 2, {8, 9}), (0, 2, 3, ALL), (0, 1, 1, ALL), (4, 5, 1, ALL)],
)
def test_processes_of_a_node_have_cpus_of_their_own_where_these_suffice(local_rank, local_size, threads, own):
    """Else each has all, also after a plan of fewer threads."""
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(local_size)}
    assert World.from_environment(environment).own_cpus(ALL, threads) == own


def test_steps_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        main(["plan.toml", "--steps", "0"])
    assert "at least 1" in capsys.readouterr().err
