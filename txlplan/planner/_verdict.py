"""One sentence that says what to take, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from txlplan.estimates import Range
from txlplan.planner._compare import Row, Size, Terms
from txlplan.planner._infeasible import describe
from txlplan.planner._payment import Account, outlay
from txlplan.planner._probability import probability_least
from txlplan.units import format_j, format_s, format_usd
from txlplan.workload import Workload

_QUALITY = {"time": "the fastest", "cost": "the cheapest", "energy": "the one that needs the least energy"}
_DOING = {"train": "trains {model} on {tokens} tokens", "score": "scores {tokens} tokens with {model}",
          "generate": "generates {tokens} tokens with {model}"}  # fmt: skip
_TAKING = {"rent": "Rent", "spot": "Rent (spot)", "buy": "Buy", None: "Take"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What to take."""

    sentence: str
    details: tuple[str, ...]
    """What the sentence rests on: how the cost of what is bought was counted, how the probability was."""
    best: str
    """Label of what is recommended: a candidate, or a smaller size of it that the ranges cannot tell from its best."""
    probability: float | None
    """That the candidate, by its best figures, really is the best of those whose figure is known, by their ranges, errors of
    one stack partly shared; None where there is nothing to compare it with."""
    probability_independent: float | None
    """The same if no two candidates shared an error."""
    n_compared: int
    """Candidates whose figure is known."""
    deadline_probability: float | None
    """That what is recommended meets the deadline, by the range of its time; None without one."""
    budget_probability: float | None
    """That it keeps the budget, by the range of its cost; None without one."""


def verdict(workload: Workload, rows: Sequence[Row], terms: Terms) -> Verdict:
    """The first of the ranked rows, in a sentence."""
    best, known = rows[0], [row for row in rows if row.best and terms.metric(row.account) is not None]
    values = [found for row in known if (found := terms.metric(row.account))]
    likely = independent = None
    if len(values) > 1:
        stacks = [row.best.candidate.stack.id for row in known if row.best]
        likely = probability_least(values, stacks, 0, shared_error=terms.economics.shared_error)
        independent = probability_least(values, stacks, 0, shared_error=0.0)
    return Verdict(
        sentence=f"{_action(workload, best, terms)}{_certainty(workload, rows, terms, likely, independent, len(values))}",
        details=_details(rows, terms, likely),
        best=best.recommended.label,
        probability=likely,
        probability_independent=independent,
        n_compared=len(values),
        deadline_probability=best.recommended.deadline_probability,
        budget_probability=best.recommended.budget_probability,
    )


def _action(workload: Workload, best: Row, terms: Terms) -> str:
    """`Rent 2x p4d.24xlarge: it trains m on 1.8 billion tokens in 10 h (6 h to 16 h) for $220 ($130 to $350)`."""
    size = best.recommended
    account = size.account
    assert account is not None
    assert workload.tokens is not None
    done = _DOING[workload.task].format(model=workload.model.id, tokens=_large(workload.tokens))
    money = f"for {_ranged(account.cost_usd, format_usd)}" if account.cost_usd else "at unknown cost"
    money += f" after {paid}" if (paid := outlay(account)) else ""
    energy = f", {_ranged(account.energy_j, format_j)}" if terms.rank_by == "energy" and account.energy_j else ""
    taking = f"If it existed, {_TAKING[account.way].lower()}" if best.offer.hypothetical else _TAKING[account.way]
    smallest = f" (the smallest size that the ranges cannot tell from {best.label})" if best.smaller else ""
    return f"{taking} {size.label}{smallest}: it {done} in {_ranged(account.time_s, format_s)} {money}{energy}{_limits(size)}"


def _limits(size: Size) -> str:
    """`, meets the deadline with a probability of 81 % and the budget with …`; empty without limits."""
    limits = {"deadline": size.deadline_probability, "budget": size.budget_probability}
    said = [f"the {name} with a probability of {_percent(likely)}" for name, likely in limits.items() if likely is not None]
    return f", meets {' and '.join(said)}" if said else ""


def _certainty(
    workload: Workload, rows: Sequence[Row], terms: Terms, likely: float | None, independent: float | None, compared: int
) -> str:
    """How it stands among the others; what is out is not compared."""
    quality, left = _QUALITY[terms.rank_by], sum(row.best is not None for row in rows)
    if likely is not None and independent is not None:
        best = f"; {rows[0].label}, in {_figures(rows[0].account)}," if rows[0].smaller else ", and"
        return (
            f"{best} is {quality} of {compared} with a probability of {_percent(likely)} "
            f"({_percent(independent)} if candidates shared no errors)."
        )
    if len(rows) == 1:
        return ", the only candidate."
    if left == 1:
        return f", the only one of {len(rows)} candidates that fits {_asked(workload)}."
    if compared == 1:
        return f", and is the only one of {left} candidates whose figure is known."
    return f", as the fastest of {left}, since for none it is known which is {quality}."


def _asked(workload: Workload) -> str:
    """`memory, deadline and budget`, as far as they are asked for."""
    limits = {"deadline": workload.deadline_s, "budget": workload.budget_usd, "power cap": workload.power_cap_w}
    *names, last = ["memory", *(name for name, limit in limits.items() if limit is not None)]
    return f"{', '.join(names)} and {last}" if names else last


def _figures(account: Account) -> str:
    """`10 h for $220`."""
    return f"{format_s(account.time_s.value)}{f' for {format_usd(account.cost_usd.value)}' if account.cost_usd else ''}"


def _details(rows: Sequence[Row], terms: Terms, likely: float | None) -> tuple[str, ...]:
    account, economics = rows[0].account, terms.economics
    details = []
    if rows[0].offer.hypothetical:
        real = next((row.label for row in rows if row.best and not row.offer.hypothetical), "none")
        details.append(f"Of what exists, the first is {real}.")
    if account.cost_usd is None:
        details.append(f"No price is known of {rows[0].label}, paid for in this way: --price states one.")
    if terms.rank_by == "energy":
        details.append("Energy is that of the devices in use: hosts, fans, cooling and devices that stand idle are not in it.")
    if account.way == "buy" and account.cost_usd:
        details.append(
            f"The cost of what is bought is its share of {economics.life_years:g} years at "
            f"{economics.utilisation * 100:.0f} % use, and electricity with cooling."
        )
    if (simpler := rows[0].simpler) and simpler.planned and simpler.account:
        details.append(
            f"A simpler plan, which the ranges cannot tell from its best, takes {_figures(simpler.account)}: "
            f"{describe(simpler.planned.choice.plan)}."
        )
    if likely is not None:
        details.append(
            "The probability follows from the 80 % ranges. Candidates with the same stack are taken to share "
            f"{economics.shared_error * 100:.0f} % of the variance of their errors; prices are taken as exact."
        )
    return tuple(details)


def _percent(share: float) -> str:
    """`0.81` → `81 %`; a probability from ranges is never certain."""
    return "over 99 %" if share >= 0.995 else f"{share * 100:.0f} %"


def _large(count: int) -> str:
    """`1800000000` → `1.8 billion`."""
    for factor, name in ((10**9, "billion"), (10**6, "million")):
        if count >= factor:
            return f"{count / factor:.6g} {name}"
    return f"{count:,}"


def _ranged(value: Range | None, write: Callable[[float | None], str]) -> str:
    assert value is not None
    return f"{write(value.value)} ({write(value.low)} to {write(value.high)})"
