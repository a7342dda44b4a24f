"""The one door to the cost model: plans in, estimates out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from txlplan.cost._checks import check
from txlplan.cost._detail import extrapolated_figures, notes, shares_a_cpu
from txlplan.cost._energy import energy_j, energy_j_per_step
from txlplan.cost._evaluated import Evaluated, evaluated
from txlplan.cost._groups import groups
from txlplan.cost._op_stream import FloatArray
from txlplan.cost._plans import Plans
from txlplan.cost._ranges import interval, memory_log_sd, time_log_sd
from txlplan.cost._terms import terms
from txlplan.cost._time import peak_flops_per_s
from txlplan.estimates import Estimate, Range
from txlplan.hardware import Cluster, StackProfile
from txlplan.plan_file import Plan
from txlplan.workload import Workload

_ARRAYS = (
    "capacity_bytes",
    "step_s",
    "tokens_per_s",
    "peak_memory_bytes",
    "least_memory_bytes",
    "fits",
    "busy_s",
    "most_layers",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """What plans will take: arrays over plans, and each plan's full estimate on demand."""

    workload: Workload
    cluster: Cluster
    stack: StackProfile
    plans: Plans
    capacity_bytes: npt.NDArray[np.int64]
    """What each plan may use of one device, [candidates]."""
    step_s: FloatArray
    tokens_per_s: FloatArray
    peak_memory_bytes: FloatArray
    least_memory_bytes: FloatArray
    """What is held however activations are checkpointed."""
    fits: npt.NDArray[np.bool_]
    busy_s: FloatArray
    """Of a step, in which the mean device computes."""
    most_layers: FloatArray
    """Layers of the stage that has most."""
    single: Evaluated | None = None
    """All that is known, where there is one plan."""

    def __len__(self) -> int:
        return len(self.plans)

    def take(self, indices: npt.NDArray[np.int64]) -> Estimates:
        """Of the plans at `indices`."""
        arrays = {name: getattr(self, name)[indices] for name in _ARRAYS}
        return replace(self, plans=self.plans.take(indices), single=None, **arrays)

    def __iter__(self) -> Iterator[Estimate]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Estimate:
        """The estimate of one plan, with its terms and ranges: costed again, alone, where there are several."""
        found = self.single
        if found is None:
            found = estimate(self.workload, self.cluster, self.stack, self.plans[index : index + 1]).single
        assert found is not None
        return _detailed(self, index, found)

    @property
    def energy_j_per_token(self) -> FloatArray | None:
        """Energy per token, [candidates]; None where the device's power is unknown."""
        joules = energy_j(self.cluster.device, occupied_devices(self.cluster, self.plans), self.step_s, self.busy_s)
        return None if joules is None else joules / (self.tokens_per_s * self.step_s)


def _detailed(estimates: Estimates, index: int, found: Evaluated) -> Estimate:
    cluster, stack, plan = estimates.cluster, estimates.stack, estimates.plans[index]
    extrapolated = extrapolated_figures(found, cluster, stack, plan)
    crowded = shares_a_cpu(cluster, plan)
    step = interval(float(estimates.step_s[index]), time_log_sd(stack, extrapolated=extrapolated, crowded=crowded))
    tokens = tokens_per_step(estimates.workload, plan)
    flops = found.model_flops()
    devices = min(plan.n_devices, cluster.n_devices)
    busy_share = float(estimates.busy_s[index]) / step.value
    return Estimate(
        stack=stack.id,
        step_s=step,
        tokens_per_s=Range(value=tokens / step.value, low=tokens / step.high, high=tokens / step.low),
        peak_memory_bytes=interval(float(estimates.peak_memory_bytes[index]), memory_log_sd(stack, extrapolated=extrapolated)),
        capacity_bytes=int(estimates.capacity_bytes[index]),
        fits=bool(estimates.fits[index]),
        flops_per_step=flops,
        mfu=flops / (peak_flops_per_s(cluster.device, found.layout.settings.precision) * devices * step.value),
        energy_j_per_step=energy_j_per_step(cluster.device, devices, step, busy_share, found.reached_share()),
        terms=terms(found, cluster.device, stack, plan),
        extrapolated=extrapolated,
        notes=notes(estimates.workload, cluster, stack, plan, extrapolated=extrapolated),
    )


_CHUNK = 65_536
"""Plans that are costed at once: a million of them then take a few hundred megabytes, whatever they are."""


def estimate(workload: Workload, cluster: Cluster, stack: StackProfile, plans: Plans | Sequence[Plan]) -> Estimates:
    """Estimate every plan. Raises InputError for a plan that the cluster cannot run or that this version cannot cost.

    `plans` may be columns (`Plans`), and then as many as memory holds: they are grouped by layout and costed in chunks.
    """
    plans = Plans.of(plans)
    check(plans, cluster, workload, stack)
    size = len(plans)
    step_s, peak, least, busy_s, layers = (np.empty(size) for _ in range(5))
    capacity = np.empty(size, dtype=np.int64)
    usable_bytes = int(cluster.device.usable_bytes() * (1 - workload.memory_headroom))
    single = None
    chunks = [
        (layout, indices[start : start + _CHUNK])
        for layout, indices in groups(plans, workload, cluster, stack)
        for start in range(0, indices.size, _CHUNK)
    ]
    several = [(layout, plans.take(some)) for layout, some in chunks]
    for (layout, some), found in zip(chunks, evaluated(several, stack), strict=True):
        step_s[some], busy_s[some] = found.step_s, found.busy_s
        peak[some], least[some], layers[some] = found.peak_memory_bytes, found.least_memory_bytes, found.most_layers
        capacity[some] = usable_bytes // layout.ranks
        single = found if size == 1 else None
    tokens = plans.global_batch * float(1 if workload.task == "generate" else workload.model.tgt_len)
    return Estimates(
        workload=workload,
        cluster=cluster,
        stack=stack,
        plans=plans,
        capacity_bytes=capacity,
        step_s=step_s,
        tokens_per_s=tokens / step_s,
        peak_memory_bytes=peak,
        least_memory_bytes=least,
        fits=peak <= capacity,
        busy_s=busy_s,
        most_layers=layers,
        single=single,
    )


def tokens_per_step(workload: Workload, plan: Plan) -> int:
    """Over all devices; a step of generation is one token of each sequence."""
    return plan.global_batch * (1 if workload.task == "generate" else workload.model.tgt_len)


def occupied_devices(cluster: Cluster, plans: Plans) -> npt.NDArray[np.int64]:
    """Devices that draw power: processes may share a CPU. [candidates]"""
    return np.minimum(plans.n_devices, cluster.n_devices)
