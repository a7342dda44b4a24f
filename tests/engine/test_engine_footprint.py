from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import torch

from txlplan.data import open_dataset
from txlplan.engine import driver, footprint
from txlplan.engine.backend import open_backend
from txlplan.engine.training import Trainer
from txlplan.engine.world import World

CPU = torch.device("cpu")


def test_resident_memory_is_what_the_system_says():
    assert abs(footprint.in_use_bytes(CPU) - psutil.Process(os.getpid()).memory_info().rss) < 20e6


def test_the_peak_stays_when_memory_is_released():
    before = footprint.peak_bytes(CPU)
    block = torch.ones(max(1, before // 4 + 100_000_000))
    assert footprint.in_use_bytes(CPU) > before
    del block
    assert footprint.peak_bytes(CPU) > before + 100_000_000
    assert footprint.allocator_peak_bytes(CPU) is None
    assert driver.energy_counter(CPU) is None
    assert driver.process_bytes(CPU) is None


@pytest.mark.no_cover
def test_memory_does_not_grow_over_a_thousand_steps(plan_of):
    model = {"n_layer": 1, "d_model": 8, "n_head": 1, "d_inner": 8, "tgt_len": 4, "mem_len": 4, "dropout": 0.1}
    plan_file = plan_of(model=model, steps=1100)
    trainer = Trainer(plan_file, open_backend(plan_file, World()), open_dataset(Path(plan_file.data.directory)))
    for _ in range(100):
        trainer.train_step()
    before = footprint.in_use_bytes(torch.device("cpu"))
    for _ in range(1000):
        trainer.train_step()
    assert footprint.in_use_bytes(torch.device("cpu")) - before < 1 << 20
