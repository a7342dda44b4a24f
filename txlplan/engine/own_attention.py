"""Attention by code of our own, where this machine can compile it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from txlplan.engine.events import Noted
from txlplan.nn._own_code import library
from txlplan.plan_file import Plan


def compiled_or_tiled(plan: Plan, emit: Callable[[Noted], None]) -> Plan:
    """The plan, or where its attention cannot be compiled the same with tiles, and a note that says why."""
    if plan.attention != "compiled":
        return plan
    try:
        library("attention")
    except Exception as error:  # whatever a compiler's absence raises in torch
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        emit(
            Noted(
                text=f"attention could not be compiled, and runs as tiles: {reason} "
                "(a C++ compiler is needed: g++, or what CXX names)"
            )
        )
        return dataclasses.replace(plan, attention="fast")
    return plan
