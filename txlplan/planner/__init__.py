"""Which plan, and which hardware: search within a space, money, and ranking of systems."""

from txlplan.planner._choose import Choice, RunnerUp, plan
from txlplan.planner._compare import Comparison, RankBy, Row, compare
from txlplan.planner._infeasible import describe, smallest_change
from txlplan.planner._money import Totals, totals
from txlplan.planner._recipe import recipe
from txlplan.planner._resolve import Candidate, stack_for
from txlplan.planner._space import Space, global_batch

__all__ = [
    "Candidate",
    "Choice",
    "Comparison",
    "RankBy",
    "Row",
    "RunnerUp",
    "Space",
    "Totals",
    "compare",
    "describe",
    "global_batch",
    "plan",
    "recipe",
    "smallest_change",
    "stack_for",
    "totals",
]
