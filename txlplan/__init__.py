"""Plan, run and benchmark Transformer-XL language models on the hardware you have or may buy.

The public interface is three verbs, loaded when they are first used:

    estimate(workload, cluster, stack, plans)   what plans will take (txlplan.cost)
    plan(model=..., system=..., tokens=...)     the best plan, and the file that runs it (txlplan.advice)
    compare(model=..., tokens=..., on=[...])    which hardware: time, cost, energy and a recommendation (txlplan.advice)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txlplan.advice import compare, plan
    from txlplan.cost import estimate

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "estimate", "plan"]

_HOMES = {"estimate": "txlplan.cost", "plan": "txlplan.advice", "compare": "txlplan.advice"}


def __getattr__(name: str) -> Any:
    """Load a verb from the package that it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
