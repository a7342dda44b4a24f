"""Runners: strict files, exact command lines, the user's own first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from txlplan import resources
from txlplan.errors import ConfigError, InputError
from txlplan.launcher import copy_runner, get_runner, launch, runner_paths
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings
from txlplan.workload import Workload


@pytest.fixture
def plan_file(tiny_model: ModelConfig) -> PlanFile:
    return PlanFile(
        system="local",
        stack="local",
        workload=Workload(model=tiny_model),
        plan=Plan(micro_batch=2, threads=3),
        data=DataSettings(directory="/data"),
        run=RunSettings(directory="/runs/a b"),
    )


def with_plan(plan_file: PlanFile, plan: Plan) -> PlanFile:
    import dataclasses

    return dataclasses.replace(plan_file, plan=plan)


def user_runner(name: str, text: str) -> Path:
    path = resources.user("runners") / name / "runner.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_shipped_runners_parse() -> None:
    assert list(runner_paths()) == ["local", "torchrun"]
    assert [get_runner(name).id for name in runner_paths()] == ["local", "torchrun"]


def test_local_command_line(plan_file: PlanFile) -> None:
    plan_path = Path("/runs/a b/plan.toml")
    started = launch(get_runner("local"), plan_file, plan_path=plan_path, arguments=("--steps", "5", "--resume"))
    assert started.command == (sys.executable, "-m", "txlplan.engine.worker", "/runs/a b/plan.toml", "--steps", "5", "--resume")
    assert started.environment == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}


def test_no_thread_count_sets_no_variable(plan_file: PlanFile) -> None:
    started = launch(get_runner("local"), with_plan(plan_file, Plan(micro_batch=2)), plan_path=Path("/p"))
    assert started.environment == {}


def test_torchrun_starts_one_process_per_device(plan_file: PlanFile) -> None:
    started = launch(get_runner("torchrun"), with_plan(plan_file, Plan(micro_batch=1, data_parallel=4)), plan_path=Path("/p"))
    assert started.command[started.command.index("--nproc-per-node") + 1] == "4"
    assert started.command[-3:] == ("-m", "txlplan.engine.worker", "/p")


def test_local_refuses_two_devices(plan_file: PlanFile) -> None:
    with pytest.raises(InputError, match="serves 1 device") as caught:
        launch(get_runner("local"), with_plan(plan_file, Plan(micro_batch=1, data_parallel=2)), plan_path=Path("/p"))
    assert "torchrun" in str(caught.value.hint)


def test_copy_hides_the_shipped_one_and_is_never_overwritten() -> None:
    path = copy_runner("local")
    path.write_text(path.read_text().replace("One worker process", "My worker process"))
    assert get_runner("local").description.startswith("My worker")
    with pytest.raises(InputError, match="exists already"):
        copy_runner("local")


def test_copy_under_another_name() -> None:
    copy_runner("torchrun", new_name="mine")
    assert get_runner("mine").command == get_runner("torchrun").command


@pytest.mark.parametrize("name", ["../evil", "a/b", ""])
def test_copy_refuses_a_name_that_is_a_path(name: str) -> None:
    with pytest.raises(InputError, match="not a name"):
        copy_runner("local", new_name=name)


def test_unknown_runner_offers_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        get_runner("torchrn")
    assert "torchrun" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('description = "x"\ncommand = ["{pythn}", "{plan}"]', r"\{pythn\}.*did you mean \{python\}"),
        ('description = "x"\ncommand = ["a", "{plan"]', "literal brace"),
        ('description = "x"\ncommand = ["a"]', "never names"),
        ('description = "x"\ncommand = []', "empty"),
        ('description = "x"\ncommand = ["{plan}", "x={arguments}"]', "part of its own"),
        ('description = "x"\ncomand = ["{plan}"]', "comand"),
        ('description = "x"\ncommand = ["{plan.parent}"]', "unknown"),
    ],
)
def test_wrong_file_is_named_with_what_is_wrong(text: str, said: str) -> None:
    path = user_runner("mine", text)
    with pytest.raises(ConfigError, match=said) as caught:
        get_runner("mine")
    assert str(path) in str(caught.value)
