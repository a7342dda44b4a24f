"""One sentence that says what to take, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from txlplan.estimates import Range
from txlplan.planner._compare import Row, Size, Terms
from txlplan.planner._infeasible import describe
from txlplan.planner._limits import a_price, price_hint
from txlplan.planner._payment import Account, outlay
from txlplan.planner._probability import Shares, probability_least
from txlplan.units import format_bytes, format_j, format_s, format_usd
from txlplan.workload import Workload

_QUALITY = {"time": "the fastest", "cost": "the cheapest", "energy": "the one whose devices need the least energy"}
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
    best_existing: str | None
    """The same of the first candidate that exists; None where none of what is left does."""
    hypothetical: bool
    """What is recommended does not exist."""
    probability: float | None
    """That what is recommended really is the best of the candidates whose figure is known, by their ranges, errors of one stack
    and of one device partly shared (of a smaller size: of these and itself); None where there is nothing to compare it with."""
    probability_independent: float | None
    """The same if no two candidates shared an error."""
    larger_probability: float | None
    """The same as `probability` of the candidate's best size, where a smaller one is recommended."""
    n_compared: int
    """Candidates whose figure is known."""
    deadline_probability: float | None
    """That what is recommended meets the deadline, by the range of its time; None without one."""
    budget_probability: float | None
    """That it keeps the budget, by the range of its cost; None without one."""


def verdict(workload: Workload, rows: Sequence[Row], terms: Terms) -> Verdict:
    """The first of the ranked rows, in a sentence."""
    first, size, chances = rows[0], rows[0].recommended, _chances(rows, terms)
    existing = next((row for row in rows if row.best and not row.offer.hypothetical), None)
    sentence = f"{_action(workload, first, terms)}{_certainty(workload, rows, terms, chances)}{_beside(first, existing)}."
    return Verdict(
        sentence=sentence,
        details=_details(rows, terms, chances),
        best=size.label,
        best_existing=existing.recommended.label if existing else None,
        hypothetical=bool(first.offer.hypothetical),
        probability=chances.likely,
        probability_independent=chances.independent,
        larger_probability=chances.larger,
        n_compared=chances.n_compared,
        deadline_probability=size.deadline_probability,
        budget_probability=size.budget_probability,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chances:
    """Probabilities as in Verdict."""

    n_compared: int
    likely: float | None = None
    independent: float | None = None
    larger: float | None = None


def _chances(rows: Sequence[Row], terms: Terms) -> _Chances:
    """A smaller size that is recommended competes with every candidate, its own larger size among them."""
    known = [(row.best, row.account) for row in rows if row.best and terms.metric(row.account) is not None]
    if len(known) < 2:
        return _Chances(n_compared=len(known))
    size = rows[0].smaller
    smaller = [(size, size.account)] if size and size.account and terms.metric(size.account) else []
    entries = [*smaller, *known]
    values = [found for _, account in entries if (found := terms.metric(account))]
    origins, shares = [size.origin for size, _ in entries], Shares.of(terms.economics)
    alone = [replace(origin, stack=f"{place}") for place, origin in enumerate(origins)]
    return _Chances(
        n_compared=len(known),
        likely=probability_least(values, origins, 0, shares=shares),
        independent=probability_least(values, alone, 0, shares=shares),
        larger=probability_least(values, origins, 1, shares=shares) if smaller else None,
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
    energy = _energy(size, account) if terms.rank_by == "energy" and account.energy_j else ""
    taking = f"If it existed, {_TAKING[account.way].lower()}" if best.offer.hypothetical else _TAKING[account.way]
    smallest = f" (the smallest size that the ranges cannot tell from {best.label})" if best.smaller else ""
    return f"{taking} {size.label}{smallest}: it {done} in {_ranged(account.time_s, format_s)} {money}{energy}{_limits(size)}"


def _energy(size: Size, account: Account) -> str:
    """`, 2.1 kWh (0.9 kWh to 3.7 kWh)`, and whose energy that is, where it is not that of all devices of the nodes."""
    assert size.planned is not None
    busy, idle = size.planned.n_devices, account.n_uncounted
    left = f" of {busy} of {busy + idle} devices: what the idle {idle} draw is unknown and not in it" if idle else ""
    return f", {_ranged(account.energy_j, format_j)}{left}"


def _limits(size: Size) -> str:
    """`, meets the deadline with a probability of 81 % and the budget with …`; empty without limits."""
    limits = {"deadline": size.deadline_probability, "budget": size.budget_probability}
    said = [f"the {name} with a probability of {_percent(likely)}" for name, likely in limits.items() if likely is not None]
    return f", meets {' and '.join(said)}" if said else ""


def _certainty(workload: Workload, rows: Sequence[Row], terms: Terms, chances: _Chances) -> str:
    """How it stands among the others; what is out is not compared."""
    quality, left = _QUALITY[terms.rank_by], sum(row.best is not None for row in rows)
    if chances.likely is not None and chances.independent is not None:
        larger = ""
        if chances.larger is not None:
            larger = f"; {rows[0].label}, in {_figures(rows[0].account)}, is with {_percent(chances.larger)}"
        return (
            f", and is {quality} of {chances.n_compared} with a probability of {_percent(chances.likely)} "
            f"({_percent(chances.independent)} if candidates shared no errors){larger}"
        )
    if len(rows) == 1:
        return ", the only candidate"
    unpriced = sum(row.unpriced for row in rows)
    if unpriced and max(left, unpriced + 1) == len(rows):
        return f", the only one of {len(rows)} candidates of which {a_price(terms.pay)} is known"
    if left == 1:
        priced = f" has {a_price(terms.pay)} that is known, and" if unpriced else ""
        fits = "is left" if any(row.unsuited for row in rows) else f"fits {_asked(workload)}"
        return f", the only one of {len(rows)} candidates that{priced} {fits}"
    if chances.n_compared == 1:
        return f", and is the only one of {left} candidates whose figure is known"
    return f", as the fastest of {left}, since for none it is known which is {quality}"


def _beside(first: Row, existing: Row | None) -> str:
    """Beside a part that does not exist, the best that does; empty beside one that exists."""
    if not first.offer.hypothetical:
        return ""
    if existing is None:
        return "; nothing that exists is left"
    return f"; of what exists, the first is {existing.label}, in {_figures(existing.account)}"


def _asked(workload: Workload) -> str:
    """`memory, deadline and budget`, as far as they are asked for."""
    limits = {"deadline": workload.deadline_s, "budget": workload.budget_usd, "power cap": workload.power_cap_w}
    *names, last = ["memory", *(name for name, limit in limits.items() if limit is not None)]
    return f"{', '.join(names)} and {last}" if names else last


def _figures(account: Account) -> str:
    """`10 h for $220`."""
    return f"{format_s(account.time_s.value)}{f' for {format_usd(account.cost_usd.value)}' if account.cost_usd else ''}"


def _details(rows: Sequence[Row], terms: Terms, chances: _Chances) -> tuple[str, ...]:
    account, economics = rows[0].account, terms.economics
    details = []
    if account.cost_usd is None:
        details.append(f"No price is known of {rows[0].label}: {price_hint(_system(rows[0]), terms.pay)}.")
    if terms.rank_by == "energy":
        details.append(
            "Energy is that of the devices: hosts, fans and cooling are not in it. Plans that leave devices of a node idle are "
            "considered where the idle power of the device is known (power_idle), or where there is no other."
        )
    if text := tight_memory(rows[0].recommended):
        details.append(f"{text[0].upper()}{text[1:]}. {_surer(rows[0])}")
    if account.way == "buy" and account.cost_usd:
        details.append(
            f"The cost of what is bought is its share of {economics.life_years:g} years at "
            f"{economics.utilisation * 100:.0f} % use, and electricity with cooling."
        )
        if idle := account.n_uncounted:
            details.append(
                f"What its {idle} idle devices draw is unknown: the electricity has {economics.idle_share * 100:.3g} % of "
                "their rated power, and its range all between nothing and that power."
            )
    if (simpler := rows[0].simpler) and simpler.planned and simpler.account:
        details.append(
            f"A simpler plan, which the ranges cannot tell from its best, takes {_figures(simpler.account)}: "
            f"{describe(simpler.planned.choice.plan)}."
        )
    if chances.likely is not None:
        shares = Shares.of(economics)
        details.append(
            "The probability follows from the 80 % ranges. Candidates with the same stack are taken to share "
            f"{economics.shared_error * 100:.0f} % of the variance of their errors, and with the same device "
            f"{(shares.stack + shares.device) * 100:.0f} %; where their number and the links are the same too, all of it. "
            "Prices are taken as exact."
        )
    return tuple(details)


def _surer(row: Row) -> str:
    """The plan that fits at the high end too, and what it takes."""
    if row.surer is None or row.surer.planned is None or row.surer.account is None:
        return "The best plan of it that does is beyond a limit."
    return f"The best plan that fits there too takes {_figures(row.surer.account)}: {describe(row.surer.planned.choice.plan)}."


def _system(row: Row) -> str:
    return row.recommended.candidate.cluster.system.id


def tight_memory(size: Size) -> str:
    """That a plan fits by its best figure only; empty where the high end of its peak memory fits too."""
    assert size.planned is not None
    found = size.planned.choice.estimate
    if not found.tight:
        return ""
    peak = found.peak_memory_bytes
    return (
        f"{size.label} fits memory by its best figure ({format_bytes(peak.value)} of {format_bytes(found.capacity_bytes)}); "
        f"the high end of its range ({format_bytes(peak.high)}) does not"
    )


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
