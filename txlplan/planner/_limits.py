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
    """Why an account misses the deadline or the budget of its workload, or both; empty where it misses neither."""
    reasons = []
    if _late(workload, account):
        reasons.append(f"takes {format_s(account.time_s.value)}, the deadline is {format_s(workload.deadline_s)}")
    if workload.budget_usd is not None and account.cost_usd is None:
        reasons.append("no price is known to hold against the budget")
    if _dear(workload, account):
        assert account.cost_usd is not None
        reasons.append(f"costs {format_usd(account.cost_usd.value)}, the budget is {format_usd(workload.budget_usd)}")
    return ", and ".join(reasons)


def refusal(workload: Workload, sizes: Sequence[Size]) -> NoPlanFitsError:
    """The error where every size is out; deadline and budget are named as a pair, with what comes nearest to each."""
    accounts = [account for size in sizes for account in size.tried]
    priced = [account for account in accounts if account.cost_usd]
    if workload.deadline_s is not None and workload.budget_usd is not None and priced:
        return _pair(workload, priced)
    reasons = "; ".join(f"{size.label}: {size.reason}" for size in sizes)
    return NoPlanFitsError(f"the workload fits none of {len(sizes)} candidates: {reasons}")


def _pair(workload: Workload, accounts: Sequence[Account]) -> NoPlanFitsError:
    """Each of both can be met alone, or one cannot, or neither."""
    cost, time_s = _cheapest(accounts), min(account.time_s.value for account in accounts)
    in_time = [account for account in accounts if not _late(workload, account)]
    affordable = [account for account in accounts if not _dear(workload, account)]
    limits = f"the deadline of {format_s(workload.deadline_s)} and the budget of {format_usd(workload.budget_usd)}"
    if in_time and affordable:
        fastest_s = min(account.time_s.value for account in affordable)
        return NoPlanFitsError(
            f"{limits} exclude each other: the cheapest in time costs {format_usd(_cheapest(in_time))}, the fastest affordable "
            f"takes {format_s(fastest_s)}",
            hint="give up one of the two, or name more candidates",
        )
    return NoPlanFitsError(
        f"{limits} cannot be met together: the fastest of all takes {format_s(time_s)}, the cheapest costs {format_usd(cost)}",
        hint="relax what these figures miss, or name more candidates",
    )


def _cheapest(accounts: Sequence[Account]) -> float:
    return min(account.cost_usd.value for account in accounts if account.cost_usd)


def _late(workload: Workload, account: Account) -> bool:
    return workload.deadline_s is not None and account.time_s.value > workload.deadline_s


def _dear(workload: Workload, account: Account) -> bool:
    return workload.budget_usd is not None and account.cost_usd is not None and account.cost_usd.value > workload.budget_usd
