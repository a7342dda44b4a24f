"""Deadline and budget of a comparison: what misses them, and what to say when everything does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txlplan.errors import NoPlanFitsError
from txlplan.planner._payment import Account
from txlplan.units import format_s, format_usd
from txlplan.workload import Workload

if TYPE_CHECKING:
    from txlplan.planner._compare import Size


def beyond_limits(workload: Workload, account: Account) -> str:
    """Why an account misses the deadline or the budget of its workload; empty where it misses neither."""
    if _late(workload, account):
        return f"takes {format_s(account.time_s.value)}, the deadline is {format_s(workload.deadline_s)}"
    if workload.budget_usd is not None and account.cost_usd is None:
        return "no price is known to hold against the budget"
    if _dear(workload, account):
        assert account.cost_usd is not None
        return f"costs {format_usd(account.cost_usd.value)}, the budget is {format_usd(workload.budget_usd)}"
    return ""


def refusal(workload: Workload, sizes: Sequence[Size]) -> NoPlanFitsError:
    """The error where every size is out; deadline and budget that exclude each other are named as a pair."""
    accounts = [size.account for size in sizes if size.account is not None]
    in_time = [account.cost_usd.value for account in accounts if account.cost_usd and not _late(workload, account)]
    affordable = [account.time_s.value for account in accounts if account.cost_usd and not _dear(workload, account)]
    if workload.deadline_s is not None and workload.budget_usd is not None and in_time and affordable:
        return NoPlanFitsError(
            f"the deadline of {format_s(workload.deadline_s)} and the budget of {format_usd(workload.budget_usd)} exclude each "
            f"other: the cheapest in time costs {format_usd(min(in_time))}, the fastest affordable takes "
            f"{format_s(min(affordable))}",
            hint="give up one of the two, or name more candidates",
        )
    reasons = "; ".join(f"{size.label}: {size.reason}" for size in sizes)
    return NoPlanFitsError(f"the workload fits none of {len(sizes)} candidates: {reasons}")


def _late(workload: Workload, account: Account) -> bool:
    return workload.deadline_s is not None and account.time_s.value > workload.deadline_s


def _dear(workload: Workload, account: Account) -> bool:
    return workload.budget_usd is not None and account.cost_usd is not None and account.cost_usd.value > workload.budget_usd
