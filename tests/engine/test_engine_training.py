"""The trainer by itself: layers that cannot be captured as graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from txlplan.data import open_dataset
from txlplan.engine.backend import open_backend
from txlplan.engine.training import Trainer
from txlplan.engine.world import World


def trainer_of(plan_file) -> Trainer:
    """Without the check that keeps graphs from a CPU."""
    return Trainer(plan_file, open_backend(plan_file, World()), open_dataset(Path(plan_file.data.directory)))


def refusing(error: Exception):
    """What stands where torch first asks the device, when layers are captured."""

    def refuse(*_: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize("accumulation", [1, 2])
def test_layers_that_cannot_be_captured_train_without_graphs_and_say_why(plan_of, monkeypatch, accumulation):
    monkeypatch.setattr(torch.cuda, "get_rng_state", refusing(RuntimeError("no graphs on this device\nand more")))
    settings = {"micro_batch": 4 // accumulation, "accumulation": accumulation}
    eager, captured = (trainer_of(plan_of(plan=settings | {"compile": how})) for how in (False, True))
    for _ in range(3):
        assert captured.train_step().loss == eager.train_step().loss
    assert captured.note == "the layers could not be captured as graphs, and run without: no graphs on this device"
    assert eager.note == ""
    assert not captured.model.is_captured


def test_a_device_that_is_full_while_layers_are_captured_is_out_of_memory(plan_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_rng_state", refusing(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        trainer_of(plan_of(plan={"compile": True})).train_step()
