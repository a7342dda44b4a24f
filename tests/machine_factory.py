"""Devices of tests, with figures that are easy to reckon with."""

from __future__ import annotations

from dataclasses import replace

from txlplan.hardware import Cluster, DeviceProfile, SystemProfile

GPU = DeviceProfile(
    id="gpu",
    name="GPU",
    kind="gpu",
    vendor="x",
    architecture="volta",
    memory_bytes=16 * 2**30,
    memory_bandwidth_bytes_per_s=900e9,
    peak_flops_per_s={"fp32": 15e12, "fp16": 120e12},
    cores=80,
    power_w=300.0,
    power_idle_w=40.0,
)
SMALL_GPU = replace(GPU, memory_bytes=2 * 2**30, power_idle_w=None)
CPU = DeviceProfile(
    id="cpu",
    name="CPU",
    kind="cpu",
    vendor="x",
    architecture="zen4",
    memory_bytes=8 * 2**30,
    memory_bandwidth_bytes_per_s=20e9,
    peak_flops_per_s={"fp32": 200e9, "bf16": 400e9},
    cores=2,
)
PC = Cluster(system=SystemProfile(id="pc", name="PC", kind="local", device="cpu", n_devices=1), device=CPU)
"""One CPU."""
