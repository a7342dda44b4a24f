"""What a plan is not to use, in words, as a smaller space."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from txlplan.errors import InputError
from txlplan.planner._space import Space

_WITHOUT: dict[str, dict[str, Any]] = {
    "tensor-parallel": {"tensor_parallel": (1,)},
    "pipeline-parallel": {"pipeline_parallel": (1,)},
    "context-parallel": {"context_parallel": (1,)},
    "zero": {"zero_stage": (0,)},
    "offload": {"offload": ("none",)},
    "checkpointing": {"activation_checkpointing": ("none",)},
    "compiled-attention": {"own_code": ()},
}
RESTRICTIONS = tuple(_WITHOUT)
"""What `without` takes."""


def without(space: Space, names: Iterable[str]) -> Space:
    """The space without some mechanisms, e.g. `tensor-parallel`. Raises InputError that offers the nearest known name."""
    for name in names:
        if name not in _WITHOUT:
            nearest = difflib.get_close_matches(name, RESTRICTIONS, n=1)
            known = f"known: {', '.join(RESTRICTIONS)}"
            raise InputError(f"--without {name!r} is not known", hint=f"did you mean {nearest[0]!r}?" if nearest else known)
        space = replace(space, **_WITHOUT[name])
    return space
