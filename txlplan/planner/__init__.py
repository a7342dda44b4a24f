"""Which plan, and which hardware: search within a space, money, and ranking of candidates."""

from txlplan.planner._break_even import BreakEven
from txlplan.planner._choose import Choice, RunnerUp, plan
from txlplan.planner._compare import RankBy, Row, Size, Terms
from txlplan.planner._comparison import Comparison, compare
from txlplan.planner._duration import Duration
from txlplan.planner._explain import Rejection, standing
from txlplan.planner._high_end import surer_plan
from txlplan.planner._infeasible import Fix, describe, fixes, memory_refusal
from txlplan.planner._known import whole_node_plan
from txlplan.planner._money import Totals, totals
from txlplan.planner._offer import Offer
from txlplan.planner._payment import Account, Pay, Way, outlay
from txlplan.planner._recipe import recipe
from txlplan.planner._resolve import Candidate, stack_for
from txlplan.planner._restrictions import RESTRICTIONS, without
from txlplan.planner._sensitivity import Sensitivity
from txlplan.planner._space import Space, global_batch
from txlplan.planner._verdict import Verdict

__all__ = [
    "RESTRICTIONS",
    "Account",
    "BreakEven",
    "Candidate",
    "Choice",
    "Comparison",
    "Duration",
    "Fix",
    "Offer",
    "Pay",
    "RankBy",
    "Rejection",
    "Row",
    "RunnerUp",
    "Sensitivity",
    "Size",
    "Space",
    "Terms",
    "Totals",
    "Verdict",
    "Way",
    "compare",
    "describe",
    "fixes",
    "global_batch",
    "memory_refusal",
    "outlay",
    "plan",
    "recipe",
    "stack_for",
    "standing",
    "surer_plan",
    "totals",
    "whole_node_plan",
    "without",
]
