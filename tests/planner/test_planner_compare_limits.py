"""Deadlines and budgets: what they leave out, and the plans that are searched within them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offers import LARGE_BATCH, WORKLOAD, candidate, made, sized, terms

from txlplan.errors import InputError, NoPlanFitsError
from txlplan.hardware import (
    Price,
)
from txlplan.planner import Account, Candidate, Comparison, Offer, Space, Terms, compare
from txlplan.units import format_usd
from txlplan.workload import Workload

THREE = [sized(1, 2, 4, 8), Offer(sizes=(candidate("p4d.24xlarge", n_nodes=2),)), made("fast", speed=2, rent=40)]


@cache
def unlimited(rank_by: Any) -> Comparison:
    """What a limit that is none must leave as it is."""
    return compare(LARGE_BATCH, THREE, terms=terms(rank_by=rank_by))


@pytest.mark.no_cover
@pytest.mark.parametrize("rank_by", ["time", "cost", "energy"])
@pytest.mark.parametrize("limits", [{"budget_usd": 1e12}, {"deadline_s": 1e12}, {"budget_usd": 1e12, "deadline_s": 1e12}])
def test_a_limit_that_is_no_limit_changes_nothing(rank_by: Any, limits: dict[str, float]) -> None:
    without = unlimited(rank_by)
    with_ = compare(replace(LARGE_BATCH, **limits), THREE, terms=terms(rank_by=rank_by))  # type: ignore[arg-type]

    def said(found: Comparison) -> list[Any]:
        return [(row.label, row.account, row.on_front, row.recommended.label, bool(row.simpler)) for row in found.rows]

    assert said(with_) == said(without)
    assert with_.verdict.probability == without.verdict.probability


def test_deadline_and_budget_leave_out_and_exclude_each_other() -> None:
    fast, cheap = made("fast", speed=2, rent=40), made("cheap", speed=1, rent=5)
    plain = compare(WORKLOAD, [fast, cheap], terms=terms())
    time_s = {row.label: row.account.time_s.value for row in plain.rows}
    cost = {row.label: row.account.cost_usd.value for row in plain.rows if row.account.cost_usd}
    between_s, between_usd = (time_s["fast"] + time_s["cheap"]) / 2, (cost["fast"] + cost["cheap"]) / 2
    in_time = compare(replace(WORKLOAD, deadline_s=between_s), [fast, cheap], terms=terms(rank_by="cost"))
    assert [row.label for row in in_time.ranked] == ["fast"]
    assert "the deadline is" in in_time.rows[1].reason
    affordable = compare(replace(WORKLOAD, budget_usd=between_usd), [fast, cheap], terms=terms())
    assert [row.label for row in affordable.ranked] == ["cheap"]
    with pytest.raises(NoPlanFitsError, match=r"deadline of .* and the budget of .* exclude each other"):
        compare(replace(WORKLOAD, deadline_s=between_s, budget_usd=between_usd), [fast, cheap], terms=terms())
    with pytest.raises(InputError, match="no price is known of a"):
        compare(replace(WORKLOAD, budget_usd=1e6), [made("a", rent=None)], terms=terms())


def test_deadline_and_budget_are_named_as_a_pair() -> None:
    one = made("one")
    (row,) = compare(WORKLOAD, [one], terms=terms()).rows
    assert row.account.cost_usd is not None
    late_s, dear_usd = 0.5 * row.account.time_s.value, 0.5 * row.account.cost_usd.value
    with pytest.raises(
        NoPlanFitsError, match=r"deadline of .* and the budget of .* cannot be met together: the fastest of all"
    ):
        compare(replace(WORKLOAD, deadline_s=late_s, budget_usd=dear_usd), [one], terms=terms())
    in_time = replace(WORKLOAD, deadline_s=late_s, budget_usd=4 * dear_usd)
    with pytest.raises(NoPlanFitsError, match="cannot be met together"):
        compare(in_time, [one], terms=terms())
    fast = made("fast", speed=4, rent=10)
    found = compare(replace(in_time, budget_usd=dear_usd), [one, fast], terms=terms())
    assert [row.label for row in found.ranked] == ["fast"]
    assert "the deadline is" in found.rows[1].reason
    assert ", and costs " in found.rows[1].reason


def test_where_the_fastest_plan_is_too_dear_the_cheapest_is_tried() -> None:
    two = candidate("p4d.24xlarge", n_nodes=2)
    limited = replace(LARGE_BATCH, budget_usd=1e9)  # a limit keeps to the best by its figures
    fastest = compare(limited, [two], terms=terms()).rows[0].account.cost_usd
    cheapest = compare(limited, [two], terms=terms(rank_by="cost")).rows[0].account.cost_usd
    assert fastest is not None
    assert cheapest is not None
    found = compare(replace(LARGE_BATCH, budget_usd=(fastest.value + cheapest.value) / 2), [two], terms=terms())
    assert found.rows[0].account.cost_usd == cheapest


FEW = Space(precision=("bf16",), offload=("none",), zero_stage=(0,), pipeline_parallel=(1,), context_parallel=(1,))


def few(workload: Workload, offers: list[Candidate], **asked: Terms) -> Comparison:
    """Of a small space, with plans of every number of nodes."""
    return compare(workload, offers, space=FEW, **asked)


def between(nodes: int = 64) -> tuple[Candidate, Account, Account]:
    """A cluster that a plan may occupy a part of, with the fastest and the cheapest of its plans: many lie between them."""
    cluster = sized(nodes).sizes[0]
    fastest, cheapest = (few(LARGE_BATCH, [cluster], terms=terms(rank_by=by)).rows[0] for by in ("time", "cost"))
    assert fastest.account.cost_usd is not None
    assert cheapest.account.cost_usd is not None
    assert 1.3 * fastest.account.time_s.value < cheapest.account.time_s.value
    assert 1.3 * cheapest.account.cost_usd.value < fastest.account.cost_usd.value
    return cluster, fastest.account, cheapest.account


def every_plan(cluster: Candidate) -> list[Account]:
    """Of every number of nodes the best plan, accounted for alone."""
    found = []
    for nodes in (2**power for power in range(cluster.cluster.n_nodes.bit_length())):
        size = replace(cluster, cluster=replace(cluster.cluster, n_nodes=nodes))
        found += [few(LARGE_BATCH, [size], terms=terms(rank_by=by)).rows[0].account for by in ("time", "cost")]
    return found


def test_within_a_limit_the_best_plan_between_the_fastest_and_the_cheapest_is_found() -> None:
    cluster, fastest, cheapest = between(16)
    known = every_plan(cluster)
    deadline_s = math.sqrt(fastest.time_s.value * cheapest.time_s.value)
    (in_time,) = few(replace(LARGE_BATCH, deadline_s=deadline_s), [cluster], terms=terms(rank_by="cost")).rows
    assert in_time.account.time_s.value <= deadline_s
    assert in_time.account.cost_usd is not None
    assert in_time.account.cost_usd.value <= min(
        one.cost_usd.value for one in known if one.cost_usd and one.time_s.value <= deadline_s
    )
    assert in_time.account.cost_usd.value < fastest.cost_usd.value  # type: ignore[union-attr]

    budget_usd = math.sqrt(fastest.cost_usd.value * cheapest.cost_usd.value)  # type: ignore[union-attr]
    (affordable,) = few(replace(LARGE_BATCH, budget_usd=budget_usd), [cluster], terms=terms()).rows
    assert affordable.account.cost_usd is not None
    assert affordable.account.cost_usd.value <= budget_usd
    assert affordable.account.time_s.value <= min(
        one.time_s.value for one in known if one.cost_usd and one.cost_usd.value <= budget_usd
    )
    assert affordable.account.time_s.value < cheapest.time_s.value

    both = replace(LARGE_BATCH, deadline_s=deadline_s, budget_usd=1.01 * in_time.account.cost_usd.value)
    for rank_by in ("time", "cost", "energy"):
        (row,) = few(both, [cluster], terms=terms(rank_by=rank_by)).rows
        assert row.account.cost_usd is not None
        assert row.account.time_s.value <= deadline_s
        assert row.account.cost_usd.value <= both.budget_usd  # type: ignore[operator]
    with pytest.raises(NoPlanFitsError, match="exclude each other") as caught:
        few(replace(both, budget_usd=0.9 * in_time.account.cost_usd.value), [cluster], terms=terms())
    assert f"the cheapest in time costs {format_usd(in_time.account.cost_usd.value)}" in caught.value.message


@pytest.mark.parametrize("kind", ["spot", "purchase"])
def test_the_cheapest_of_what_is_not_rented_on_demand_occupies_fewer_nodes(kind: Any) -> None:
    cluster, _, _ = between(16)
    price = Price(
        kind=kind,
        date="2026-11-01",
        source="test",
        **({"purchase_usd": 200_000.0} if kind == "purchase" else {"rent_usd_per_h": 9.0}),
    )
    system = replace(cluster.cluster.system, prices=(price,))
    only = replace(cluster, cluster=replace(cluster.cluster, system=system))
    pay: Any = "buy" if kind == "purchase" else "spot"
    fastest, cheapest = (few(LARGE_BATCH, [only], terms=terms(rank_by=by, pay=pay)).rows[0].account for by in ("time", "cost"))
    assert fastest.cost_usd is not None
    assert cheapest.cost_usd is not None
    assert cheapest.cost_usd.value < 0.8 * fastest.cost_usd.value
    budget_usd = math.sqrt(fastest.cost_usd.value * cheapest.cost_usd.value)
    within = few(replace(LARGE_BATCH, budget_usd=budget_usd), [only], terms=terms(pay=pay)).rows[0].account
    assert within.cost_usd is not None
    assert within.cost_usd.value <= budget_usd
    assert fastest.time_s.value < within.time_s.value < cheapest.time_s.value


def test_a_looser_limit_never_makes_it_worse() -> None:
    cluster, fastest, cheapest = between(16)
    assert cheapest.cost_usd is not None
    least = cheapest.cost_usd.value
    times = [
        few(replace(LARGE_BATCH, budget_usd=factor * least), [cluster], terms=terms()).rows[0].account.time_s.value
        for factor in (1.001, 1.1, 1.3, 1.7, 2.5, 5.0, 100.0)
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] == fastest.time_s.value


def test_the_chance_to_meet_the_limits_is_told() -> None:
    (free,) = compare(WORKLOAD, [made("a")], terms=terms()).rows
    time_s, cost = free.account.time_s, free.account.cost_usd
    assert cost is not None
    found = compare(replace(WORKLOAD, deadline_s=time_s.high, budget_usd=cost.value * 1.0001), [made("a")], terms=terms())
    (row,) = found.rows
    assert row.best is not None
    sd = math.log(time_s.high / time_s.low) / (2 * 1.2815515)
    expected = 0.5 * (1 + math.erf(math.log(time_s.high / math.sqrt(time_s.low * time_s.high)) / sd / math.sqrt(2)))
    assert row.best.deadline_probability == found.verdict.deadline_probability == pytest.approx(expected, abs=1e-4)
    assert 0.88 < expected < 0.92, "the upper end of an 80 % range"
    assert row.best.budget_probability == found.verdict.budget_probability == pytest.approx(0.5, abs=0.001)
    assert f"meets the deadline with a probability of {expected * 100:.0f} % and the budget with a probability of 50 %," in (
        found.verdict.sentence
    )
    unlimited = compare(WORKLOAD, [made("a")], terms=terms()).verdict
    assert (unlimited.deadline_probability, unlimited.budget_probability) == (None, None)
    assert "meets" not in unlimited.sentence


def test_the_only_one_that_fits_is_not_said_to_be_the_only_one_that_is_known() -> None:
    candidates = [made("fast", speed=2), made("slow", speed=0.5), made("slower", speed=0.4)]
    fast_s = compare(WORKLOAD, candidates, terms=terms()).rows[0].account.time_s.value
    late = compare(replace(WORKLOAD, deadline_s=1.1 * fast_s), candidates, terms=terms()).verdict
    assert late.sentence.endswith(", the only one of 3 candidates that fits memory and deadline.")
    one = compare(WORKLOAD, [made("a"), made("b", rent=None), made("c", rent=None)], terms=terms(rank_by="cost")).verdict
    assert one.sentence.endswith(", the only one of 3 candidates of which a price is known.")
    watts = compare(WORKLOAD, [made("a"), made("b", power=None)], terms=terms(rank_by="energy")).verdict
    assert watts.sentence.endswith(", and is the only one of 2 candidates whose figure is known.")
    apart = made("apart")
    two = compare(LARGE_BATCH, [made("a"), replace(apart, cluster=replace(apart.cluster, n_nodes=2))], terms=terms())
    assert two.rows[-1].reason == "apart has no inter_node link, so 2 of it cannot train together"
    assert two.verdict.sentence.endswith(", the only one of 2 candidates that is left.")


@given(least=st.floats(10.0, 110.0), factor=st.floats(1.0, 5.0))
@settings(max_examples=5, deadline=None)
def test_a_larger_budget_never_makes_it_worse(least: float, factor: float) -> None:
    candidates = [made("fast", speed=2, rent=40), made("plain", rent=12), made("cheap", speed=0.5, rent=3)]

    def best_s(budget: float) -> float:
        try:
            found = compare(replace(WORKLOAD, budget_usd=budget), candidates, terms=terms())
        except NoPlanFitsError:
            return float("inf")
        return found.rows[0].account.time_s.value

    assert best_s(least * factor) <= best_s(least)


def test_where_the_cheapest_plan_is_late_the_fastest_is_tried() -> None:
    two = candidate("p4d.24xlarge", n_nodes=2)
    limited = replace(LARGE_BATCH, deadline_s=1e9)
    cheapest = compare(limited, [two], terms=terms(rank_by="cost")).rows[0]
    fastest = compare(limited, [two], terms=terms()).rows[0]
    assert fastest.account.time_s.value < cheapest.account.time_s.value
    between_s = (fastest.account.time_s.value + cheapest.account.time_s.value) / 2
    found = compare(replace(LARGE_BATCH, deadline_s=between_s), [two], terms=terms(rank_by="cost"))
    assert found.rows[0].account.time_s.value == fastest.account.time_s.value
