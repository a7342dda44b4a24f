"""Plans sorted into layouts that are costed together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from txlplan.cost._build import Settings
from txlplan.cost._layout import Layout
from txlplan.cost._plans import IntArray, Plans
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.workload import Workload

_KEYS = ("precision", "activation_checkpointing", "tensor_parallel", "context_parallel", "threads", "compile", "attention")


def groups(plans: Plans, workload: Workload, cluster: Cluster, stack: StackProfile) -> Iterator[tuple[Layout, IntArray]]:
    """Every layout among the plans, and the indices of its plans."""
    on_cpu = cluster.device.kind == "cpu"
    ranks = -(-plans.data_parallel // cluster.n_devices) if on_cpu else np.ones(len(plans), dtype=np.int64)
    if len(plans) == 1:
        yield _layout(plans[0], int(ranks[0]), workload, cluster, stack), np.zeros(1, dtype=np.int64)
        return
    key = ranks
    for name in _KEYS:
        column = plans.columns[name]
        key = key * (int(column.max(initial=0)) + 1) + column
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(first.size + 1))
    for place, index in enumerate(first):
        layout = _layout(plans[int(index)], int(ranks[index]), workload, cluster, stack)
        yield layout, order[bounds[place] : bounds[place + 1]]


def _layout(plan: Plan, ranks: int, workload: Workload, cluster: Cluster, stack: StackProfile) -> Layout:
    kind = plan.activation_checkpointing if workload.task == "train" else "none"
    settings = Settings.of(workload, cluster.device, stack, plan)
    threads = None
    if cluster.device.kind == "cpu":
        share = max(cluster.device.cores // ranks, 1)
        threads = min(plan.threads or share, share)
    return Layout(settings=replace(settings, checkpointing="none"), kind=kind, threads=threads, ranks=ranks, cluster=cluster)
