"""A plan that fits at the high end of the range of its memory too, beside one that fits by its best figure."""

from __future__ import annotations

from dataclasses import replace

from txlplan.cost import estimate
from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import Cluster, StackProfile
from txlplan.planner._choose import Choice, RunnerUp, plan
from txlplan.planner._explain import settings_that_differ
from txlplan.planner._objective import behind
from txlplan.planner._space import Space
from txlplan.workload import Workload

_ROUNDING = 1e-9
"""What fits within a proportion of the capacity is then within it, and the next proportion is a wider one."""


def surer_plan(workload: Workload, cluster: Cluster, stack: StackProfile, space: Space, choice: Choice) -> RunnerUp | None:
    """The best plan whose peak memory fits at the high end of its range; None where the choice does, or none does.

    The range is in proportion to the peak, so that a plan which fits in the capacity over that proportion fits by its high end.
    Where the plan that is found has a wider one, and is tight by it, that one is asked for.
    """
    offered = sure = estimate(workload, cluster, stack, [choice.plan])
    while sure[0].tight:
        peak = sure[0].peak_memory_bytes
        headroom = 1 - (1 - workload.memory_headroom) * peak.value / peak.high * (1 - _ROUNDING)
        asked = replace(workload, memory_headroom=headroom)
        try:
            found = plan(asked, cluster, stack, space=space, simplify=False, runners_up=0).plan
        except (NoPlanFitsError, InputError):
            return None
        sure = estimate(workload, cluster, stack, [found])
    if sure is offered:
        return None
    return RunnerUp(
        plan=sure.plans[0],
        estimate=sure[0],
        behind=behind(workload, cluster, sure, offered),
        difference=settings_that_differ(sure.plans[0], choice.plan),
    )
