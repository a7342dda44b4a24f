from __future__ import annotations

import os

import psutil
import torch

from txlplan.engine import energy, footprint

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
    assert energy.counter(CPU) is None
