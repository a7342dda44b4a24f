"""The best plans of a space, exactly, without costing every one.

Checkpointing activations only adds time and energy: what runs again takes longer than what was kept. A plan without it is
therefore a lower bound of all plans that differ from it in checkpointing alone. So

1. every plan without checkpointing is costed;
2. one that fits beats all its checkpointed variants, which are never looked at;
3. of one that does not fit, the variants are costed, in the order of their bounds, until the bound of the next is beyond the
   best ones found: it, and all after it, are proven to be worse;
4. one whose parameters, optimizer states and recurrent memory alone exceed the device has no variant that fits.

A plan that misses the deadline, the budget or the power cap without checkpointing misses it with checkpointing too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from txlplan.cost import Estimates, Plans, estimate
from txlplan.hardware import Cluster, StackProfile
from txlplan.planner._objective import Limited, limited, objective_of
from txlplan.planner._space import Space, n_plans
from txlplan.workload import Workload

_BATCH = 1024
"""Plans whose variants are costed together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What is left of a space."""

    plans: Plans
    """Those that fit and meet the limits, as far as they may be among the best ones; the best first."""
    objective: npt.NDArray[np.float64]
    """What is to be least, [plans]."""
    n_considered: int
    """Plans of the space."""
    n_costed: int
    """Of them costed; the others are proven to be worse."""
    n_fitting: int
    """Of those costed, how many fit in memory."""
    plain: Estimates
    """Of all plans without checkpointing: what to say when nothing is left."""
    limits: Limited


def search(
    workload: Workload,
    cluster: Cluster,
    stack: StackProfile,
    space: Space,
    *,
    keep: int,
    slack: float = 1.0,
    known: Estimates | None = None,
) -> Found:
    """The best plan of a space, the next best up to `keep`, and all within `slack` times the best; InputError as `Space.plans`.

    A plan that fits stands for its checkpointed variants, which are no better and are not among the next best. Equal
    plans are ordered by simplicity: less checkpointing, accumulation, fewer devices and threads, nothing compiled.
    `known`: estimates of the plans without checkpointing, where they are there already.
    """
    estimates = known or estimate(workload, cluster, stack, space.plain(workload, cluster, stack))
    plain = estimates.plans
    bound, limits = objective_of(workload, cluster, estimates), limited(workload, cluster, estimates)
    kept_whole = "none" in space.kinds(workload)
    fitting = estimates.fits & kept_whole
    chosen = np.flatnonzero(fitting & limits.met)
    parts, values = [plain.take(chosen)], [bound[chosen]]
    n_costed, n_fitting = len(plain), int(fitting.sum())
    open_ = np.flatnonzero(limits.met & ~fitting & (estimates.least_memory_bytes <= estimates.capacity_bytes))
    open_ = open_[np.argsort(bound[open_], kind="stable")]
    for start in range(0, open_.size, _BATCH):
        some = open_[start : start + _BATCH]
        some = some[bound[some] <= _threshold(values, keep, slack)]
        if not some.size:
            break
        variants = space.checkpointed(estimates.take(some))
        if not len(variants):
            continue
        costed = estimate(workload, cluster, stack, variants)
        good = np.flatnonzero(costed.fits & limited(workload, cluster, costed).met)
        parts.append(variants.take(good))
        values.append(objective_of(workload, cluster, costed)[good])
        n_costed, n_fitting = n_costed + len(variants), n_fitting + int(costed.fits.sum())
    plans, objective = Plans.joined(parts), np.concatenate(values)
    order = np.lexsort((*reversed(_complexity(plans)), objective))
    order = order[: max(keep, int((objective <= slack * objective[order[:1]]).sum()))]
    return Found(
        plans=plans.take(order),
        objective=objective[order],
        n_considered=n_plans(space, estimates),
        n_costed=n_costed,
        n_fitting=n_fitting,
        plain=estimates,
        limits=limits,
    )


def _threshold(values: list[npt.NDArray[np.float64]], keep: int, slack: float) -> float:
    """What a plan must not be beyond to be among those wanted."""
    found = np.concatenate(values)
    if found.size < keep:
        return np.inf
    return float(max(np.partition(found, keep - 1)[keep - 1], slack * found.min()))


def _complexity(plans: Plans) -> tuple[npt.NDArray[np.int64], ...]:
    checkpointed = (plans.activation_checkpointing != 0).astype(np.int64)
    return checkpointed, plans.accumulation, plans.n_devices, plans.threads, plans.compile
