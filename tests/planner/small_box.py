"""What the planner's tests plan on: a box of four small GPUs, and a small model."""

from __future__ import annotations

from dataclasses import replace

from machine_factory import SMALL_GPU

from txlplan.hardware import Cluster, Link, Price, StackProfile, SystemProfile
from txlplan.model import ModelConfig
from txlplan.workload import Workload

MODEL = ModelConfig(id="m", n_layer=2, d_model=64, n_head=4, d_head=16, d_inner=128, vocab_size=500, tgt_len=32, mem_len=32)
LINK = Link(kind="nvswitch2", bandwidth_bytes_per_s=300e9)
SYSTEM = SystemProfile(
    id="box",
    name="Box",
    kind="cloud",
    device="gpu",
    n_devices=4,
    intra_node=LINK,
    prices=(Price(kind="on-demand", rent_usd_per_h=12.0, date="2026-01-01", source="test"),),
)
CLUSTER = Cluster(system=SYSTEM, device=SMALL_GPU)
STACK = StackProfile(id="plain", family="txlplan", version="0", context_bytes=300 * 2**20)
WIDE = Workload(model=replace(MODEL, n_layer=4, d_model=128), global_batch=64)
WIDE_CLUSTER = Cluster(system=replace(SYSTEM, n_devices=8, intra_node=LINK, inter_node=LINK), device=SMALL_GPU, n_nodes=2)
"""Where a simpler plan is not told apart."""


def with_memory(bytes_: int) -> Cluster:
    return replace(CLUSTER, device=replace(SMALL_GPU, memory_bytes=bytes_))
