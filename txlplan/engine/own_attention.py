"""Attention by code of our own, where this machine can compile it."""

from __future__ import annotations

import torch

from txlplan.choices import Precision
from txlplan.engine.failures import message
from txlplan.errors import InputError, RunFailedError
from txlplan.nn._attention_code import has_attention_code
from txlplan.nn._own_code import Name, library
from txlplan.plan_file import Plan

_CODE: dict[Precision, tuple[Name, ...]] = {"fp32": ("attention", "dropout"), "bf16": ("attention_bf16", "dropout", "norm")}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def require_code(precision: Precision) -> None:
    """Raises InputError where there is none for this CPU: tiles that ran under its name would be taken for it."""
    dtype = _DTYPES.get(precision)
    if dtype is None or not has_attention_code(torch.device("cpu"), dtype):
        raise InputError(f"attention = 'compiled': in {precision} there is no code for this CPU")


def require_attention(plan: Plan, precision: Precision) -> None:
    """Have the code of a plan that computes attention by it, drops, and norms, compiled in some ten seconds where it never was.

    `precision`: in which the plan computes here. Raises RunFailedError where there is no compiler: tiles that ran under its
    name would be taken for it.
    """
    if plan.attention == "compiled":
        try:
            for name in _CODE[precision]:
                library(name)
        except Exception as error:  # whatever a compiler's absence raises in torch
            raise RunFailedError(
                f"attention could not be compiled: {message(error)}",
                hint='a C++ compiler is needed (g++, or what CXX names); attention = "fast" under [plan] needs none',
            ) from error
