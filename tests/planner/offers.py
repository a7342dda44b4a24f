"""What the tests of a comparison compare: candidates with prices of their own."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

from txlplan.hardware import (
    Cluster,
    DeviceProfile,
    Link,
    Price,
    StackProfile,
    SystemProfile,
    devices,
    economics,
    systems,
)
from txlplan.model import ModelConfig
from txlplan.planner import Candidate, Offer, Terms
from txlplan.workload import Workload

STACK = StackProfile(id="plain", family="txlplan", version="0")
WORKLOAD = Workload(
    model=ModelConfig(
        id="m", n_layer=4, d_model=512, n_head=8, d_head=64, d_inner=2048, vocab_size=10_000, tgt_len=64, mem_len=64
    ),
    tokens=10**9,
)
LARGE_BATCH = replace(WORKLOAD, global_batch=2048)
TODAY = datetime.date(2026, 11, 24)


def terms(**changes: Any) -> Terms:
    return Terms(**{"economics": economics.get("default"), "today": TODAY, **changes})


def candidate(system: str, **options: int) -> Candidate:
    profile = systems.get(system)
    return Candidate.from_profiles(profile, devices.get(profile.device), stack=STACK, **options)


def made(
    name: str, *, speed: float = 1.0, rent: float | None = 10.0, purchase: float | None = None, power: float | None = 300
) -> Candidate:
    """One device, `speed` times as fast as a plain one, with prices of today."""
    device = DeviceProfile(
        id=f"{name}-device", name=name, kind="gpu", vendor="x", architecture="volta", memory_bytes=32 * 2**30,
        memory_bandwidth_bytes_per_s=900e9 * speed, peak_flops_per_s={"fp32": 15e12 * speed}, cores=80, power_w=power,
    )  # fmt: skip
    known = {"on-demand": {"rent_usd_per_h": rent}, "purchase": {"purchase_usd": purchase}}
    prices = tuple(
        Price(kind=kind, date="2026-11-01", source="test", **amount)  # type: ignore[arg-type]
        for kind, amount in known.items()
        if next(iter(amount.values())) is not None
    )
    system = SystemProfile(id=name, name=name, kind="cloud", device=device.id, n_devices=1, prices=prices)
    return Candidate(cluster=Cluster(system=system, device=device), stack=STACK)


def sized(*nodes: int) -> Offer:
    """Sizes of a system whose link is so slow that more of it are hardly faster."""
    one = candidate("p4d.24xlarge")
    link = Link(kind="ethernet", bandwidth_bytes_per_s=25e9)
    system = replace(one.cluster.system, inter_node=link)
    return Offer(sizes=tuple(replace(one, cluster=replace(one.cluster, system=system, n_nodes=count)) for count in nodes))
