"""What every test shares: a home of its own, and a way to call the command line in this process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from txlplan.cli import run
from txlplan.model import ModelConfig

# Several tests run at once on few cores: a thread that waits in a loop for one that has no core keeps it from getting one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Each run draws the same examples; `pytest --hypothesis-profile default` draws others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pages' commands first: each takes long, and at the end one process would wait for another's last page."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config, data and record store of this test alone."""
    root = tmp_path / "home"
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(root / name.lower()))
    for name in ("TXLPLAN_PROFILES", "TXLPLAN_RUNNERS", "TXLPLAN_REPORTS", "TXLPLAN_STORE"):
        monkeypatch.delenv(name, raising=False)
    return root


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it is."""
        return json.loads(self.stdout)


@pytest.fixture
def txlplan(capfd: pytest.CaptureFixture[str]) -> Any:
    """Call the command line: `txlplan("hardware", "list", "--json")` gives a Result."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        exit_code = run([str(argument) for argument in arguments])
        stdout, stderr = capfd.readouterr()
        return Result(exit_code, stdout, stderr)

    return call


@pytest.fixture
def tiny_model() -> ModelConfig:
    """A model small enough for any test."""
    return ModelConfig(id="tiny", n_layer=2, d_model=16, n_head=2, d_head=8, d_inner=32, vocab_size=256, tgt_len=8, mem_len=8)
