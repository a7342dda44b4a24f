"""Deadline and budget of a comparison: what misses them, and what to say when everything does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txlplan.errors import InputError, NoPlanFitsError, TxlplanError
from txlplan.planner._payment import Account, Pay
from txlplan.units import format_s, format_usd
from txlplan.workload import Workload

if TYPE_CHECKING:
    from txlplan.planner._compare import Size, Terms

_PRICES: dict[Pay, str] = {"auto": "price", "rent": "on-demand price", "spot": "spot price", "buy": "purchase price"}
_EXAMPLES: dict[Pay, str] = {"auto": "18.50/h", "rent": "18.50/h", "spot": "'spot 7.10/h'", "buy": "'150000 USD'"}


MOST_LOST = 0.5
"""Share of the time that failures may take: beyond it, the interval between checkpoints is not the best one any more."""


def hopeless(account: Account) -> str:
    """That failures undo more than is done; empty where they do not."""
    lost = account.duration.lost_share
    if lost <= MOST_LOST:
        return ""
    undone = "failures and interruptions" if account.way == "spot" else "failures"
    return (
        f"{undone} are expected to take {min(lost, 0.999) * 100:.3g} % of its time: fewer devices, or shorter runs, fail less"
    )


def unpriced(workload: Workload, account: Account, terms: Terms) -> str:
    """Why an account has no cost where one decides: candidates are ranked by it, or there is a budget. Empty elsewhere."""
    if account.cost_usd is not None or not (terms.rank_by == "cost" or workload.budget_usd is not None):
        return ""
    if account.way is None:
        return f"no {_PRICES[terms.pay]} is known"
    return "what it costs is unknown: the rated power of its devices is not known"


def a_price(pay: Pay) -> str:
    """`an on-demand price`."""
    return f"{'an' if pay == 'rent' else 'a'} {_PRICES[pay]}"


def no_price(names: Sequence[str], pay: Pay) -> str:
    """`no spot price is known of dgx-1 and dgx-2`."""
    *others, last = sorted(set(names))
    return f"no {_PRICES[pay]} is known of {', '.join(others)}{' and ' if others else ''}{last}"


def price_hint(system: str, pay: Pay) -> str:
    """How to state the price that is missing."""
    return f"--price {system}={_EXAMPLES[pay]} states one"


def beyond_limits(workload: Workload, account: Account, terms: Terms) -> str:
    """Why an account is out: lost to failures, past deadline or budget, or without a cost that decides; empty if it is in."""
    reasons = [text] if (text := hopeless(account)) else []
    if _late(workload, account):
        reasons.append(f"takes {format_s(account.time_s.value)}, the deadline is {format_s(workload.deadline_s)}")
    if text := unpriced(workload, account, terms):
        reasons.append(text)
    if _dear(workload, account):
        assert account.cost_usd is not None
        reasons.append(f"costs {format_usd(account.cost_usd.value)}, the budget is {format_usd(workload.budget_usd)}")
    return ", and ".join(reasons)


def refusal(workload: Workload, sizes: Sequence[Size], terms: Terms) -> TxlplanError:
    """The error where nothing is left; deadline and budget are named as a pair, with what comes nearest to each.

    Where it is for want of a price alone, that is the matter: InputError.
    """
    if all(size.unpriced for size in sizes):
        names = [size.candidate.cluster.system.id for size in sizes]
        without = "or rank by time, without --pay and --budget"
        return InputError(no_price(names, terms.pay), hint=f"{price_hint(min(names), terms.pay)}, {without}")
    accounts = [account for size in sizes for account in size.tried if not hopeless(account)]
    priced = [account for account in accounts if account.cost_usd]
    if workload.deadline_s is not None and workload.budget_usd is not None and priced:
        return _pair(workload, priced)
    labels: dict[str, list[str]] = {}
    for size in sizes:
        labels.setdefault(size.reason or f"no {_PRICES[terms.pay]} is known", []).append(size.label)
    reasons = "; ".join(f"{', '.join(those)}: {reason}" for reason, those in labels.items())
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
