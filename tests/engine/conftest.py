"""A small byte data set, and plan files over it."""

from __future__ import annotations

import dataclasses
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from txlplan.data import prepare
from txlplan.engine import events
from txlplan.engine.worker import main
from txlplan.model import ModelConfig
from txlplan.nn._suited_products import leave_to_torch
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, Sampling, write_plan_file
from txlplan.workload import Optimization, Workload


@pytest.fixture(scope="session")
def dataset_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of generated English-like text: 90 % train, 5 % valid, 5 % test."""
    root = tmp_path_factory.mktemp("data")
    words = random.Random(1)
    vocabulary = ["the", "state", "of", "union", "is", "strong", "and", "free", "people", "année"]
    lines = (" ".join(words.choices(vocabulary, k=12)) + ".\n" for _ in range(600))
    text = root / "text.txt"
    text.write_text("".join(lines), encoding="utf-8")
    prepare([text], root / "prepared", processes=1)
    return root / "prepared"


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """The worker sets threads, products, determinism and signal handlers of its process; here that is the tests'."""
    threads, handlers = torch.get_num_threads(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    leave_to_torch()
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def plan_of(dataset_directory: Path, tmp_path: Path, tiny_model: ModelConfig) -> Callable[..., PlanFile]:
    """`plan_of(run={...}, plan={...}, …)`: a plan file for 8 steps of 4 sequences, with the given fields changed."""

    def build(
        *,
        model: dict[str, Any] | None = None,
        optimization: dict[str, Any] | None = None,
        sampling: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        steps: int | None = 8,
        workload: dict[str, Any] | None = None,
        plan: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
    ) -> PlanFile:
        changed_plan = Plan(**({"micro_batch": 4, "threads": 1} | (plan or {})))
        config = dataclasses.replace(tiny_model, **(model or {}))
        tokens = steps * changed_plan.global_batch * config.tgt_len if steps else None
        return PlanFile(
            system="local-cpu",
            stack="local",
            workload=Workload(
                model=config,
                optimization=Optimization(learning_rate=1e-2, **(optimization or {})),
                **({"tokens": tokens} | (workload or {})),
            ),
            plan=changed_plan,
            data=DataSettings(directory=str(dataset_directory), **(data or {})),
            run=RunSettings(directory=str(tmp_path / "run"), **(run or {})),
            sampling=Sampling(**(sampling or {})),
        )

    return build


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a worker did."""

    exit_code: int
    directory: Path
    events: list[events.Event]

    def of(self, kind: type[Any]) -> list[Any]:
        """Its events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def finished(self) -> events.Finished:
        """Its last word."""
        assert isinstance(self.events[-1], events.Finished)
        return self.events[-1]

    @property
    def losses(self) -> list[float]:
        """Loss of each step."""
        return [event.loss for event in self.of(events.Step)]


@pytest.fixture
def work() -> Callable[..., Ran]:
    """Run the worker in this process: `work(plan_file, "--resume")`."""

    def call(plan_file: PlanFile, *options: str, age_s: float = 0.0) -> Ran:
        directory = Path(plan_file.run.directory)
        write_plan_file(directory / "plan.toml", plan_file)
        path = directory / events.FILE_NAME
        offset = path.stat().st_size if path.exists() else 0
        exit_code = main([str(directory / "plan.toml"), *options], age_s=age_s)
        return Ran(exit_code, directory, events.read(path, offset)[0])

    return call
