"""A plan that fits at the high end of the range of its memory too, beside one that fits by its best figure."""

from __future__ import annotations

from dataclasses import replace

from txlplan.cost import estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster, StackProfile
from txlplan.planner._choose import Choice, RunnerUp, plan
from txlplan.planner._explain import settings_that_differ
from txlplan.planner._objective import objective_of
from txlplan.planner._space import Space
from txlplan.workload import Workload


def surer_plan(workload: Workload, cluster: Cluster, stack: StackProfile, space: Space, choice: Choice) -> RunnerUp | None:
    """The best plan whose peak memory fits at the high end of its range; None where the choice does, or none does.

    The range is in proportion to the peak, so that a plan which fits in the capacity over that proportion fits by its high end.
    """
    if not choice.estimate.tight:
        return None
    known = next((one for one in choice.runners_up if one.estimate.fits and not one.estimate.tight), None)
    if known is not None:
        return known
    peak = choice.estimate.peak_memory_bytes
    asked = replace(workload, memory_headroom=1 - (1 - workload.memory_headroom) * peak.value / peak.high)
    try:
        found = plan(asked, cluster, stack, space=space, simplify=False, runners_up=0).plan
    except (NoPlanFitsError, InputError):
        return None
    both = estimate(workload, cluster, stack, [choice.plan, found])
    offered, other = objective_of(workload, cluster, both)
    return RunnerUp(
        plan=found,
        estimate=both[1],
        behind=float(other / offered - 1),
        difference=settings_that_differ(found, choice.plan),
    )
