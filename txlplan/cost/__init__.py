"""The cost model: op streams, compute time, memory, communication and energy, to estimates.

`estimate(workload, cluster, stack, plans)` is the one door; the op stream behind it is public for tests and tools.
"""

from txlplan.cost._account import Account, account, tail_targets
from txlplan.cost._build import Settings, build
from txlplan.cost._checks import allowed, check
from txlplan.cost._estimate import Estimates, estimate, tokens_per_step
from txlplan.cost._op_stream import Op, OpStream
from txlplan.cost._plans import Plans

__all__ = [
    "Account",
    "Estimates",
    "Op",
    "OpStream",
    "Plans",
    "Settings",
    "account",
    "allowed",
    "build",
    "check",
    "estimate",
    "tail_targets",
    "tokens_per_step",
]
