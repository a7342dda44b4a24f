"""Ranking of candidates, their front, and what is out and why."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest
from offers import LARGE_BATCH, STACK, TODAY, WORKLOAD, candidate, made, sized, terms

from txlplan.errors import ConfigError, InputError, NoPlanFitsError
from txlplan.hardware import (
    Economics,
    Link,
    Price,
    Spread,
    economics,
    with_prices,
)
from txlplan.model import ModelConfig
from txlplan.planner import Candidate, Offer, compare, plan
from txlplan.planner._probability import Origin, Shares, probability_least, probability_less
from txlplan.units import format_s
from txlplan.workload import Workload


def test_rank_by_time_and_by_cost() -> None:
    candidates = [candidate("p3.16xlarge"), candidate("dgx-h100"), candidate("p3.2xlarge")]
    by_time = compare(WORKLOAD, candidates, terms=terms())
    times = [row.account.time_s.value for row in by_time.rows]
    assert times == sorted(times)
    assert by_time.verdict.best == "dgx-h100"
    assert by_time.verdict.sentence.startswith("Take dgx-h100: it trains m on 1 billion tokens in ")
    by_cost = compare(WORKLOAD, candidates, terms=terms(rank_by="cost"))
    assert (by_cost.rows[-1].label, by_cost.rows[-1].reason) == ("dgx-h100", "no price is known")
    costs = [row.account.cost_usd for row in by_cost.rows[:2]]
    assert costs[0].value <= costs[1].value
    assert by_cost.verdict.n_compared == 2


def test_the_order_of_candidates_changes_nothing() -> None:
    candidates = [made("a"), made("b"), made("c", speed=1.3, rent=12), made("d", speed=0.5, rent=None)]
    found = [
        compare(WORKLOAD, order, terms=terms(rank_by="cost"))
        for order in (candidates, candidates[::-1], candidates[2:] + candidates[:2])
    ]
    assert {tuple(row.label for row in each.rows) for each in found} == {tuple(row.label for row in found[0].rows)}
    assert len({each.verdict for each in found}) == 1
    assert len({each.sensitivities for each in found}) == 1


def test_the_front_holds_what_no_other_beats() -> None:
    found = compare(
        WORKLOAD,
        [made("fast", speed=2, rent=40, power=900), made("cheap", speed=1, rent=5), made("worse", speed=0.9, rent=9)],
        terms=terms(),
    )
    front = {row.label for row in found.rows if row.on_front}
    assert front == {"fast", "cheap"}


def test_a_faster_device_is_never_slower_and_a_dearer_one_never_cheaper() -> None:
    slow, fast = (compare(WORKLOAD, [made("a", speed=speed)], terms=terms()).rows[0].account for speed in (1.0, 1.5))
    assert fast.time_s.value < slow.time_s.value
    assert slow.cost_usd is not None
    assert fast.cost_usd is not None
    assert fast.cost_usd.value < slow.cost_usd.value


def test_sizes_of_a_system_scale_and_one_stands_for_it() -> None:
    offer = Offer(sizes=tuple(candidate("p4d.24xlarge", n_nodes=nodes) for nodes in (1, 2, 4)))
    assert offer.label == "1 to 4 x p4d.24xlarge"
    by_time = compare(LARGE_BATCH, [offer], terms=terms()).rows[0]
    assert [size.planned.n_devices for size in by_time.sizes if size.planned] == [8, 16, 32]
    efficiencies = [size.efficiency for size in by_time.sizes]
    assert efficiencies[0] == 1.0
    assert efficiencies[0] > efficiencies[1] > efficiencies[2] > 0
    assert by_time.label == "4x p4d.24xlarge"
    by_cost = compare(LARGE_BATCH, [offer], terms=terms(rank_by="cost"))
    assert by_cost.rows[0].label == "p4d.24xlarge"
    assert by_cost.verdict.probability is None
    assert by_cost.verdict.sentence.endswith(", the only candidate.")


def test_the_smallest_size_that_the_ranges_cannot_tell_from_the_best_is_recommended() -> None:
    found = compare(LARGE_BATCH, [sized(1, 2, 4, 8, 16, 32)], terms=terms())
    (row,) = found.rows
    times = {size.label: size.account.time_s for size in row.sizes if size.account}
    fastest = min(times, key=lambda label: times[label].value)
    assert row.label == fastest, "ranked by the best of its figures"
    assert row.best is not None
    assert row.smaller is not None
    assert row.smaller.candidate.cluster.n_nodes < row.best.candidate.cluster.n_nodes
    shared = 0.5 + 0.5 * 0.36
    even = [label for label, time_s in times.items() if probability_less(times[fastest], time_s, shared_error=shared) <= 0.8]
    assert found.verdict.best == row.recommended.label == row.smaller.label == even[0], "sizes grow along the offer"
    assert row.smaller_probability == pytest.approx(probability_less(times[fastest], times[even[0]], shared_error=shared))
    assert f"Rent {even[0]} (the smallest size that the ranges cannot tell from {fastest})" in found.verdict.sentence
    (note,) = [text for text in found.warnings if "the smaller one is recommended" in text]
    assert fastest in note
    assert f"{row.smaller_probability * 100:.0f} %" in note
    assert {case.best for case in found.sensitivities} <= {even[0]}, "nothing of that makes a larger one better"


def test_rows_are_ranked_by_their_best_figures_and_a_smaller_size_is_named_beside_them() -> None:
    """A rival between the smaller size and the best one of an offer does not win, and the probability is its own."""
    offer = sized(1, 2, 4, 8, 16, 32)
    (alone,) = compare(LARGE_BATCH, [offer], terms=terms()).rows
    assert alone.smaller is not None
    assert alone.smaller.account is not None
    fastest_s, smaller_s = alone.account.time_s.value, alone.smaller.account.time_s.value
    assert alone.best is not None
    cluster, nodes = alone.best.candidate.cluster, alone.best.candidate.cluster.n_nodes
    rivals = [
        replace(alone.best.candidate, cluster=replace(cluster, system=replace(cluster.system, id="rival", inter_node=link)))
        for link in (Link(kind="ethernet", bandwidth_bytes_per_s=25e9 * share) for share in (0.9, 0.8, 0.7, 0.5, 0.3, 0.1))
    ]
    found = next(
        found
        for rival in rivals
        if fastest_s < (found := compare(LARGE_BATCH, [rival, offer], terms=terms())).rows[1].account.time_s.value < smaller_s
    )
    first, second = found.rows
    assert (first.label, second.label, second.smaller) == (alone.label, f"{nodes}x rival", None)
    assert first.account == alone.account
    verdict, smaller = found.verdict, first.smaller
    assert verdict.probability is not None
    assert verdict.larger_probability is not None
    assert smaller is not None
    assert smaller.account is not None
    values = [smaller.account.time_s, first.account.time_s, second.account.time_s]
    origins = [Origin(stack="plain", device="a100-sxm4-40gb", setup=place) for place in range(3)]
    shares = Shares(stack=0.5, device=0.18)
    chances = [probability_least(values, origins, place, shares=shares) for place in range(3)]
    assert [verdict.probability, verdict.larger_probability] == chances[:2], "of the smaller one, and of its larger self"
    assert verdict.probability < verdict.larger_probability
    named = f"Rent {alone.smaller.label} (the smallest size that the ranges cannot tell from {first.label})"
    assert found.verdict.sentence.startswith(named)
    said = f", and is the fastest of 2 with a probability of {verdict.probability * 100:.0f} % "
    assert said in verdict.sentence
    assert verdict.sentence.endswith(f", is with {verdict.larger_probability * 100:.0f} %.")
    assert f"; {first.label}, in " in verdict.sentence


def test_a_simpler_plan_is_named_and_does_not_stand_for_the_best() -> None:
    simple = [
        found
        for nodes in (1, 2, 4)
        if (found := compare(replace(WORKLOAD, global_batch=256), [candidate("p4d.24xlarge", n_nodes=nodes)], terms=terms()))
        .rows[0]
        .simpler
    ]
    assert simple, "on one of these a simpler plan is not told apart"
    for found in simple:
        row = found.rows[0]
        assert row.best is not None
        assert row.simpler is not None
        assert row.simpler.account is not None
        target = row.best.candidate
        exact = plan(replace(WORKLOAD, global_batch=256), target.cluster, target.stack, simplify=False)
        assert row.best.planned is not None
        assert row.best.planned.choice.plan == exact.plan
        assert row.best.planned.choice.totals == exact.totals
        assert row.account.time_s.value < row.simpler.account.time_s.value
        assert found.verdict.details[0].startswith("A simpler plan, which the ranges cannot tell from its best, takes ")


def test_where_the_ranges_tell_sizes_apart_the_best_is_offered() -> None:
    sure = replace(STACK, spread=Spread(time_log_sd=1e-6, memory_log_sd=1e-6, extrapolated_time_log_sd=1e-6, source="test"))
    offer = Offer(sizes=tuple(replace(size, stack=sure) for size in sized(1, 2, 4, 8, 16).sizes))
    (row,) = compare(LARGE_BATCH, [offer], terms=terms()).rows
    times = {size.label: size.account.time_s.value for size in row.sizes if size.account}
    assert row.smaller is None
    assert row.label == min(times, key=lambda label: times[label])
    by_cost = compare(LARGE_BATCH, [sized(1, 2, 4)], terms=terms(rank_by="cost")).rows[0]
    costs = {size.label: size.account.cost_usd.value for size in by_cost.sizes if size.account and size.account.cost_usd}
    assert by_cost.smaller is None, "a smaller one that takes more node hours is not simpler"
    assert by_cost.label == min(costs, key=lambda label: costs[label])


def test_a_size_that_the_batch_cannot_fill_is_out_with_its_reason() -> None:
    offer = Offer(sizes=tuple(candidate("p4d.24xlarge", n_nodes=nodes) for nodes in (1, 64)))
    row = compare(replace(WORKLOAD, global_batch=1), [offer], terms=terms()).rows[0]
    assert row.label == "p4d.24xlarge"
    assert "no plan divides a global batch of 1" in row.sizes[1].reason


def test_nodes_that_a_plan_leaves_idle_are_named() -> None:
    found = compare(replace(WORKLOAD, global_batch=1), [candidate("p4d.24xlarge", n_nodes=500)], terms=terms())
    (note,) = [text for text in found.warnings if "only these are counted" in text]
    assert note.startswith("the best plan for 500x p4d.24xlarge occupies 1 of 500 nodes")


def test_a_cluster_larger_than_any_is_refused() -> None:
    with pytest.raises(InputError, match=r"100,000,000 × p4d\.24xlarge are 800,000,000 devices"):
        candidate("p4d.24xlarge", n_nodes=100_000_000)
    assert candidate("p4d.24xlarge", n_nodes=25_000).cluster.n_devices == 200_000


def test_what_does_not_fit_is_named() -> None:
    huge = Workload(
        model=ModelConfig(
            id="huge", n_layer=48, d_model=4096, n_head=32, d_head=128, d_inner=16384, vocab_size=1000, tgt_len=64, mem_len=64
        ),
        tokens=10**9,
        global_batch=8,
    )
    with pytest.raises(NoPlanFitsError, match="fits none of 1 candidates"):
        compare(huge, [candidate("p3.2xlarge")], terms=terms())
    found = compare(WORKLOAD, [candidate("p3.2xlarge"), candidate("dgx-1", n_devices=2)], terms=terms())
    assert {row.label for row in found.ranked} == {"p3.2xlarge", "dgx-1 (2 of 8 devices)"}


def test_old_prices_are_warned_about() -> None:
    fresh = compare(WORKLOAD, [made("a"), made("b")], terms=terms())
    assert not any("days old" in text for text in fresh.warnings)
    stale = compare(WORKLOAD, [made("a"), made("b")], terms=terms(today=TODAY + datetime.timedelta(days=90)))
    assert (
        "the on-demand price of a is 113 days old (2026-11-01): state today's with --price, or `txlplan prices import`"
        in stale.warnings
    )


def test_old_prices_of_a_break_even_are_warned_about_too() -> None:
    """`both` is rented, `b` is neither bought nor the cheapest: what buying is held against is read as well."""
    spot = Price(kind="spot", rent_usd_per_h=5.0, date="2027-02-01", source="test")
    both = made("both", rent=20.0, purchase=50_000.0)
    system = with_prices(both.cluster.system, [spot])
    candidates = [replace(both, cluster=replace(both.cluster, system=system)), made("b", rent=10.0)]
    later = TODAY + datetime.timedelta(days=90)
    found = compare(WORKLOAD, candidates, terms=terms(today=later, pay="spot"))
    assert {(system, price.kind) for system, price in found.stale_prices} == {("both", "purchase"), ("b", "on-demand")}
    assert any(text.startswith("the purchase price of both is 113 days old") for text in found.warnings)
    assert compare(WORKLOAD, candidates, terms=terms()).stale_prices == ()


def test_bad_input() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare(WORKLOAD, [], terms=terms())
    with pytest.raises(InputError, match="tokens"):
        compare(Workload(model=WORKLOAD.model), [candidate("dgx-1")], terms=terms())
    with pytest.raises(ConfigError, match="unknown system"):
        Candidate.of("dgx-one")
    with pytest.raises(InputError, match="evenly"):
        candidate("dgx-1", n_devices=9)
    with pytest.raises(InputError, match="at least one size"):
        Offer(sizes=())


@pytest.mark.parametrize(
    "changes",
    [
        {"pue": 0.9},
        {"pue": float("nan")},
        {"life_years": 0.0},
        {"utilisation": 1.5},
        {"shared_error": -1.0},
        {"device_failure_s": 0.0},
        {"evaluate_every_steps": -1},
    ],
)
def test_assumptions_that_make_no_sense(changes: dict[str, Any]) -> None:
    known: Economics = economics.get("default")
    with pytest.raises(ValueError, match=next(iter(changes)).removesuffix("_s")):
        replace(known, **changes)


def test_what_lacks_the_price_that_is_asked_for_is_never_taken_by_cost() -> None:
    """It is left out where cost decides, ranked last where it does not, and named with the way to state a price."""
    fast, slow = made("fast", speed=4, rent=None, purchase=1e5), made("slow", rent=9.0)
    for limits in ({}, {"budget_usd": 1e9}):
        by_cost = compare(replace(WORKLOAD, **limits), [fast, slow], terms=terms(rank_by="cost", pay="rent"))
        assert [row.label for row in by_cost.ranked] == ["slow"]
        assert by_cost.rows[1].reason == "no on-demand price is known"
        said = ", the only one of 2 candidates of which an on-demand price is known."
        assert by_cost.verdict.sentence.endswith(said)
        assert "no on-demand price is known of fast: left out; --price fast=18.50/h states one" in by_cost.warnings
    by_time = compare(WORKLOAD, [fast, slow], terms=terms(pay="rent"))
    assert [row.label for row in by_time.ranked] == ["slow", "fast"]
    assert by_time.rows[1].account.cost_usd is None
    assert "no on-demand price is known of fast: ranked last; --price fast=18.50/h states one" in by_time.warnings
    assert by_time.verdict.sentence.endswith(", the only one of 2 candidates of which an on-demand price is known.")
    with pytest.raises(InputError, match="no spot price is known of fast and slow") as error:
        compare(WORKLOAD, [fast, slow], terms=terms(pay="spot"))
    assert error.value.hint == "--price fast='spot 7.10/h' states one, or rank by time, without --pay and --budget"
    late = replace(WORKLOAD, deadline_s=0.5 * by_time.rows[0].account.time_s.value)
    with pytest.raises(NoPlanFitsError, match=r"slow: takes .*; fast: no on-demand price is known|fast: .*; slow: takes "):
        compare(late, [fast, slow], terms=terms(rank_by="cost", pay="rent"))
    powerless = made("b", rent=None, purchase=1e5, power=None)
    (row,) = compare(WORKLOAD, [slow, powerless], terms=terms(rank_by="cost")).rows[1:]
    assert row.reason == "what it costs is unknown: the rated power of its devices is not known"
    assert not row.unpriced


def test_a_part_that_does_not_exist_is_recommended_beside_the_best_that_does() -> None:
    real, better = made("real"), made("twin", speed=3)
    twin = Offer(sizes=(better,), hypothetical="cores = 240")
    found = compare(WORKLOAD, [Offer(sizes=(real,)), twin, made("slow", speed=0.2)], terms=terms())
    assert found.verdict.sentence.startswith("If it existed, rent twin with cores = 240: ")
    assert "; of what exists, the first is real, in " in found.verdict.sentence
    assert (found.verdict.best, found.verdict.best_existing) == ("twin with cores = 240", "real")
    assert found.verdict.hypothetical
    alone = compare(WORKLOAD, [twin], terms=terms()).verdict
    assert alone.best_existing is None
    assert alone.sentence.endswith("; nothing that exists is left.")
    plain = compare(WORKLOAD, [real], terms=terms()).verdict
    assert (plain.hypothetical, plain.best, plain.best_existing) == (False, "real", "real")


def test_a_plan_that_fits_by_its_best_figure_alone_says_so() -> None:
    unsure = replace(STACK, spread=Spread(time_log_sd=0.1, memory_log_sd=4.0, extrapolated_time_log_sd=0.1, source="test"))
    sure, vague = made("sure", speed=0.5), replace(made("vague"), stack=unsure)
    found = compare(WORKLOAD, [sure, vague], terms=terms())
    tight = [row.label for row in found.rows if row.best and row.best.planned and row.best.planned.choice.estimate.tight]
    assert tight == ["vague"]
    said = "vague fits memory by its best figure ("
    assert [text.startswith("V" + said[1:]) for text in found.verdict.details].count(True) == 1
    assert not any(text.startswith(said) for text in found.warnings), "once is enough"
    second = compare(WORKLOAD, [made("fast", speed=9), vague], terms=terms())
    assert [text.startswith(said) for text in second.warnings].count(True) == 1


def test_a_surer_plan_of_what_is_recommended_is_named_with_what_it_takes() -> None:
    (free,) = compare(WORKLOAD, [made("a")], terms=terms()).rows
    assert free.best is not None
    assert free.best.planned is not None
    assert free.surer is None
    peak, capacity = free.best.planned.choice.estimate.peak_memory_bytes, free.best.planned.choice.estimate.capacity_bytes
    one = made("a")
    small = replace(one.cluster.device, memory_bytes=int(one.cluster.device.memory_bytes * 1.02 * peak.value / capacity))
    tight = replace(one, cluster=replace(one.cluster, device=small))
    found = compare(WORKLOAD, [tight], terms=terms())
    (row,) = found.rows
    assert row.best is not None
    assert row.best.planned is not None
    assert row.best.planned.choice.estimate.tight
    assert row.surer is not None
    assert row.surer.planned is not None
    assert row.surer.account is not None
    sure = row.surer.planned.choice.estimate
    assert sure.peak_memory_bytes.high <= sure.capacity_bytes
    assert row.surer.account.time_s.value >= row.account.time_s.value
    (said,) = [text for text in found.verdict.details if "fits memory by its best figure" in text]
    assert f". The best plan that fits there too takes {format_s(row.surer.account.time_s.value)} for $" in said
    if row.surer.account.time_s.value > row.account.time_s.value:
        between_s = (row.surer.account.time_s.value + row.account.time_s.value) / 2
        late = compare(replace(WORKLOAD, deadline_s=between_s), [tight], terms=terms())
        assert late.rows[0].surer is None
        assert any(text.endswith("The best plan of it that does is beyond a limit.") for text in late.verdict.details)
