"""Answers as objects: a question in names, resolved, planned or compared, and shown in any form.

`plan(...)` and `compare(...)` are what `txlplan plan`, `txlplan compare` and a notebook call alike.
"""

from txlplan.advice._advice import Advice
from txlplan.advice._compare import compare
from txlplan.advice._conditions import Bar, bar, missed
from txlplan.advice._offers import LOCAL, STATED, candidate, price_of, shared_by
from txlplan.advice._plan import Question, plan
from txlplan.advice._prices import Imported, import_prices
from txlplan.advice._proposal import Proposal
from txlplan.advice._scenario import Scenario, WhatIf, read_scenario
from txlplan.advice._workload import workload_of

__all__ = [
    "LOCAL",
    "STATED",
    "Advice",
    "Bar",
    "Imported",
    "Proposal",
    "Question",
    "Scenario",
    "WhatIf",
    "bar",
    "candidate",
    "compare",
    "import_prices",
    "missed",
    "plan",
    "price_of",
    "read_scenario",
    "shared_by",
    "workload_of",
]
