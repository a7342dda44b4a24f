"""The buyer's answer as one object: a scenario in names, resolved, compared, and shown in any form.

`compare(...)` is what `txlplan compare` and a notebook call alike.
"""

from txlplan.advice._advice import Advice
from txlplan.advice._compare import compare
from txlplan.advice._conditions import Bar, bar, missed
from txlplan.advice._offers import LOCAL, candidate, price_of
from txlplan.advice._prices import Imported, import_prices
from txlplan.advice._scenario import Scenario, WhatIf, read_scenario

__all__ = [
    "LOCAL",
    "Advice",
    "Bar",
    "Imported",
    "Scenario",
    "WhatIf",
    "bar",
    "candidate",
    "compare",
    "import_prices",
    "missed",
    "price_of",
    "read_scenario",
]
