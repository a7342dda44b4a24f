"""A record estimated again, with the profiles that are there now."""

from __future__ import annotations

from dataclasses import replace

from txlplan.cost import estimate
from txlplan.errors import TxlplanError
from txlplan.hardware import Cluster, devices, stacks, systems
from txlplan.records import Record
from txlplan.validation._rows import Row, Unscored, score


def score_again(record: Record) -> Row | Unscored:
    """As `score`, with an estimate made now, under the system and the stack that the record names."""
    if record.outcome in ("running", "failed") or not record.has_result:
        return score(record)
    try:
        system = systems.get(record.system)
        device, stack = devices.get(system.device), stacks.get(record.stack)
        used = None if device.kind == "cpu" else record.n_devices
        cluster = Cluster(system=system, device=device, devices_per_node=used)
        found = estimate(record.workload, cluster, stack, [record.plan])[0]
    except TxlplanError as error:
        return Unscored(id=record.id, reason=f"cannot be estimated again: {error.message}")
    return score(replace(record, estimate=found))
