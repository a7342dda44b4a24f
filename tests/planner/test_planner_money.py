"""Time to the result, what it costs in each way of paying, when buying pays, and what would change the answer."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from offers import LARGE_BATCH, WORKLOAD, candidate, made, terms

from txlplan.errors import NoPlanFitsError
from txlplan.estimates import Range
from txlplan.hardware import Economics, Price, economics, with_prices
from txlplan.model import parameter_count
from txlplan.planner import Account, Candidate, Comparison, Duration, Offer, Space, compare
from txlplan.planner._duration import _Work

HOUR_S = 3600.0
KNOWN: Economics = economics.get("default")


def account(candidate: Candidate, way: str, **changes: Any) -> Account:
    row = compare(WORKLOAD, [candidate], terms=terms(economics=replace(KNOWN, **changes), pay=way)).rows[0]
    return next(one for one in row.best.accounts if one.way == way)  # type: ignore[union-attr]


def duration(**changes: Any) -> Duration:
    return account(made("a"), "rent", **changes).duration


def with_spot(candidate: Candidate) -> Candidate:
    spot = Price(kind="spot", rent_usd_per_h=3.0, date="2026-11-01", source="test")
    cluster = candidate.cluster
    return replace(candidate, cluster=replace(cluster, system=with_prices(cluster.system, [spot])))


def test_the_parts_of_the_time_add_up_and_follow_their_assumptions() -> None:
    found = duration()
    parts = (found.start_s, found.steps_s, found.evaluation_s, found.checkpoints_s, found.failures_s)
    assert sum(parts) == pytest.approx(found.total_s.value)
    assert found.total_s.low < found.total_s.value < found.total_s.high
    assert duration(start_s=500.0).total_s.value == pytest.approx(found.total_s.value + 380.0)
    assert duration(evaluate_every_steps=0).evaluation_s == 0.0
    twice = duration(evaluation_tokens=2 * KNOWN.evaluation_tokens)
    assert twice.evaluation_s == pytest.approx(2 * found.evaluation_s)
    assert found.evaluation_s > 0


def test_checkpoints_and_failures_follow_youngs_formula() -> None:
    failure_s, bandwidth = 50 * HOUR_S, 1e6
    found = duration(device_failure_s=failure_s, storage_bandwidth_bytes_per_s=bandwidth)
    checkpoint_s = parameter_count(WORKLOAD.model) * 12 / bandwidth
    interval_s = math.sqrt(2 * checkpoint_s * failure_s)
    useful_s = found.steps_s + found.evaluation_s
    assert interval_s < useful_s
    assert found.checkpoints_s == pytest.approx(useful_s * checkpoint_s / interval_s, rel=1e-3)
    first_order_s = useful_s / failure_s * (interval_s / 2 + KNOWN.restart_s)
    assert first_order_s < found.failures_s < 1.2 * first_order_s


def simulated_s(work_s: float, interval_s: float, checkpoint_s: float, mean_s: float, restart_s: float) -> float:
    """Mean time of many runs that fail at random, as they would happen: work since the last checkpoint is done again."""
    source, runs = random.Random(7), 4_000
    total_s = 0.0
    for _ in range(runs):
        left_s = work_s
        while left_s > 1e-9:
            step_s = min(interval_s, left_s) + checkpoint_s
            while (failed_s := source.expovariate(1 / mean_s)) < step_s:
                total_s += failed_s
                while (again_s := source.expovariate(1 / mean_s)) < restart_s:
                    total_s += again_s
                total_s += restart_s
            total_s += step_s
            left_s -= interval_s
    return total_s / runs


@pytest.mark.parametrize("mean_s", [100.0, 300.0, 3000.0])
def test_failures_take_what_a_simulation_of_them_takes(mean_s: float) -> None:
    """Also where they take a third of the time: to first order it would be a tenth too little."""
    checkpoint_s, restart_s = 2.0, 10.0
    work = _Work(checkpoint_s=checkpoint_s, failure_s=mean_s, economics=replace(KNOWN, restart_s=restart_s, start_s=0.0))
    interval_s = math.sqrt(2 * checkpoint_s * mean_s)
    parts = work.duration(20 * interval_s, 0.0)
    expected = simulated_s(20 * interval_s, interval_s, checkpoint_s, mean_s, restart_s)
    assert sum(parts.values()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("limits", [{}, {"deadline_s": 1e15}, {"deadline_s": 1e15, "budget_usd": 1e15}])
@pytest.mark.parametrize("failure_s", [1e-3, 60.0])
def test_what_failures_undo_is_refused(limits: dict[str, float], failure_s: float) -> None:
    offer, frail = with_spot(made("a")), replace(KNOWN, spot_interruption_s=failure_s)
    asked = replace(WORKLOAD, **limits)  # type: ignore[arg-type]
    with pytest.raises(NoPlanFitsError, match=r"failures and interruptions are expected to take \d+\.?\d* % of its time"):
        compare(asked, [offer], terms=terms(economics=frail, pay="spot"))
    assert compare(asked, [offer], terms=terms(economics=frail)).verdict.best == "a", "rented on demand it is not interrupted"


def test_scoring_writes_no_checkpoints_and_begins_again() -> None:
    row = compare(replace(WORKLOAD, task="score"), [made("a")], terms=terms()).rows[0]
    found = row.account.duration
    assert found.checkpoints_s == found.evaluation_s == 0.0
    mean_s = KNOWN.device_failure_s
    in_all_s = mean_s * math.exp(KNOWN.restart_s / mean_s) * math.expm1(found.steps_s / mean_s)
    assert found.failures_s == pytest.approx(in_all_s - found.steps_s, rel=1e-6)


def test_rent_is_time_times_price() -> None:
    found = account(made("a", rent=7.0), "rent")
    assert found.cost_usd == Range(
        value=pytest.approx(found.time_s.value / HOUR_S * 7.0),
        low=pytest.approx(found.time_s.low / HOUR_S * 7.0),
        high=pytest.approx(found.time_s.high / HOUR_S * 7.0),
    )


def test_spot_nodes_are_interrupted() -> None:
    candidate = with_spot(made("a"))
    spot, rent = (account(candidate, way, spot_interruption_s=20 * HOUR_S) for way in ("spot", "rent"))
    assert spot.duration.failures_s > 10 * rent.duration.failures_s
    assert spot.time_s.value > rent.time_s.value
    assert spot.cost_usd is not None
    assert spot.cost_usd.value == pytest.approx(spot.time_s.value / HOUR_S * 3.0)


def test_buying_costs_its_share_of_the_life_and_its_electricity() -> None:
    candidate = made("a", rent=None, purchase=100_000.0)
    found = account(candidate, "buy")
    assert found.cost_usd is not None
    assert found.electricity_usd is not None
    assert found.energy_j is not None
    life_s = KNOWN.life_years * 365.25 * 86400 * KNOWN.utilisation
    capital = found.cost_usd.value - found.electricity_usd.value
    assert capital == pytest.approx(100_000 * found.time_s.value / life_s)
    assert found.electricity_usd.value == pytest.approx(found.energy_j.value * KNOWN.pue * KNOWN.electricity_usd_per_j)
    half = account(candidate, "buy", utilisation=KNOWN.utilisation / 2)
    assert half.cost_usd is not None
    assert half.cost_usd.value == pytest.approx(found.electricity_usd.value + 2 * capital)


def test_a_purchase_states_its_outlay() -> None:
    one = made("a", rent=7.0, purchase=100_000.0)
    assert account(one, "buy").capital_usd == 100_000
    assert account(one, "rent").capital_usd is None
    assert account(made("b", rent=None, purchase=1e5, power=None), "buy").capital_usd == 1e5, (
        "though its running cost is unknown"
    )
    two = compare(LARGE_BATCH, [candidate("dgx-1", n_nodes=2)], terms=terms(pay="buy")).rows[0].account
    assert two.price is not None
    assert two.price.purchase_usd is not None
    assert two.capital_usd == 2 * two.price.purchase_usd
    bought = compare(replace(WORKLOAD, budget_usd=500.0), [one], terms=terms(pay="buy"))
    assert " after an outlay of $100,000, " in bought.verdict.sentence
    assert "outlay" not in compare(WORKLOAD, [one], terms=terms()).verdict.sentence
    unpriced = compare(WORKLOAD, [one, made("c", purchase=None)], terms=terms(pay="buy")).rows[-1].account
    assert (unpriced.way, unpriced.capital_usd) == (None, None)


def test_the_rest_of_a_node_draws_power_too() -> None:
    candidate = made("a", rent=None, purchase=100_000.0)
    system = replace(candidate.cluster.system, power_w=1300.0)
    plain, whole = (
        account(candidate, "buy"),
        account(replace(candidate, cluster=replace(candidate.cluster, system=system)), "buy"),
    )
    assert plain.electricity_usd is not None
    assert whole.electricity_usd is not None
    more = 1000.0 * plain.time_s.value * KNOWN.pue * KNOWN.electricity_usd_per_j
    assert whole.electricity_usd.value == pytest.approx(plain.electricity_usd.value + more)
    assert account(made("b", purchase=1.0, power=None), "buy").cost_usd is None


def test_idle_devices_of_a_bought_node_draw_something_between_nothing_and_their_rated_power() -> None:
    one = candidate("dgx-1")
    one = replace(one, cluster=replace(one.cluster, system=replace(one.cluster.system, power_w=None)))
    few = Space(data_parallel=(2,), tensor_parallel=(1,), pipeline_parallel=(1,), context_parallel=(1,))
    found = compare(WORKLOAD, [one], terms=terms(pay="buy"), space=few)
    account = found.rows[0].account
    assert account.n_uncounted == 6
    assert account.electricity_usd is not None
    assert account.energy_j is not None
    factor, idle_w = KNOWN.pue * KNOWN.electricity_usd_per_j, 6 * 300.0
    assert account.electricity_usd.low == pytest.approx(account.energy_j.low * factor)
    assert account.electricity_usd.high == pytest.approx((account.energy_j.high + idle_w * account.time_s.high) * factor)
    likely_j = account.energy_j.value + KNOWN.idle_share * idle_w * account.time_s.value
    assert account.electricity_usd.value == pytest.approx(likely_j * factor)
    (said,) = [text for text in found.verdict.details if "idle devices" in text]
    assert said.startswith("What its 6 idle devices draw is unknown: the electricity has 13.5 % of their rated power")
    whole = compare(WORKLOAD, [one], terms=terms(pay="buy"), space=replace(few, data_parallel=(8,)))
    assert not any("idle devices" in text for text in whole.verdict.details)


def test_what_a_waiting_device_draws_is_an_assumption() -> None:
    """Of two boards; one figure for estimate, plan and compare, which a comparison may take otherwise."""
    device = candidate("dgx-1").cluster.device
    assert device.power_w is not None
    assert device.waiting_w() == KNOWN.idle_share * device.power_w
    assert pytest.approx((55 / 400 + 40 / 300) / 2, abs=5e-5) == KNOWN.idle_share
    energies = [account(made("a"), "rent", idle_share=share).energy_j for share in (0.0, KNOWN.idle_share, 1.0)]
    lows, values = ([getattr(energy, end) for energy in energies if energy] for end in ("low", "value"))
    assert lows[0] < lows[1] < lows[2], "between the kernels and within them"
    time_s = account(made("a"), "rent").time_s
    assert values[2] == pytest.approx(300.0 * time_s.value), "all of the rated power, all of the time"


def test_auto_rents_where_it_can() -> None:
    both, bought = made("both", purchase=1e6), made("bought", rent=None, purchase=1e6)
    rows = compare(WORKLOAD, [both, bought, made("free", rent=None)], terms=terms()).rows
    assert {row.label: row.account.way for row in rows} == {"both": "rent", "bought": "buy", "free": None}
    asked = compare(WORKLOAD, [both, made("r")], terms=terms(pay="buy")).rows
    assert {row.label: row.account.cost_usd is None for row in asked} == {"both": False, "r": True}


def test_break_even_is_where_both_have_cost_the_same() -> None:
    found = compare(
        WORKLOAD, [made("own", rent=None, purchase=50_000.0), made("a", rent=20.0), made("b", rent=30.0)], terms=terms()
    )
    (one,) = found.break_evens
    assert (one.bought, one.rented) == ("own", "a")
    assert one.runs is not None
    assert one.runs_low is not None
    assert one.capital_usd + one.runs * one.electricity_usd_per_run == pytest.approx(one.runs * one.rent_usd_per_run)
    assert one.runs_low < one.runs
    assert one.runs_high is None or one.runs_high > one.runs
    assert one.use_s == pytest.approx(one.runs * found.rows[0].account.time_s.value)


def test_buying_never_pays_against_rent_below_electricity() -> None:
    found = compare(WORKLOAD, [made("own", rent=None, purchase=50_000.0), made("a", rent=0.01)], terms=terms())
    assert found.break_evens[0].runs is None
    assert found.break_evens[0].utilisation is None
    assert compare(WORKLOAD, [made("a")], terms=terms()).break_evens == ()


def test_break_even_is_against_the_cheapest_size() -> None:
    """Ranked by time, the largest size stands for its system; a run on it costs more than on one node."""
    (system, other) = (candidate(name, n_nodes=1) for name in ("p4d.24xlarge", "dgx-1"))
    sizes = [replace(system, cluster=replace(system.cluster, n_nodes=count)) for count in (1, 2, 4)]
    rented = compare(LARGE_BATCH, [Offer(sizes=tuple(sizes)), other], terms=terms())
    (row,) = (row for row in rented.rows if row.offer.sizes[0] == system)
    rents = {
        size.label: one.cost_usd.value for size in row.sizes for one in size.accounts if one.way == "rent" and one.cost_usd
    }
    assert row.label != "p4d.24xlarge"
    assert rents[row.label] > rents["p4d.24xlarge"]
    (found,) = rented.break_evens
    assert (found.rented, found.rent_usd_per_run) == ("p4d.24xlarge", min(rents.values()))
    late = row.account.time_s.value * 1.1
    limited = compare(replace(LARGE_BATCH, deadline_s=late), [Offer(sizes=tuple(sizes))], terms=terms()).rows[0]
    assert [size.label for size in limited.sizes if not size.reason] == ["4x p4d.24xlarge"]


def test_buying_pays_within_the_life_at_the_assumed_use_or_not() -> None:
    own, other = made("own", rent=None, purchase=50_000.0), made("a", rent=20.0)

    def answer(use: float, rent: float = 20.0) -> tuple[bool, str]:
        economics = replace(KNOWN, utilisation=use)
        candidates = [own, replace(other, cluster=made("a", rent=rent).cluster)]
        (one,) = compare(WORKLOAD, candidates, terms=terms(economics=economics)).break_evens
        assert one.pays == (one.runs is not None and one.runs <= one.life_runs)
        return one.pays, one.answer

    (one,) = compare(WORKLOAD, [own, other], terms=terms()).break_evens
    assert one.utilisation is not None
    assert one.runs is not None
    pays, text = answer(1.01 * one.utilisation)
    assert pays
    assert text.startswith(f"pays after {one.runs:,.0f} runs (")
    needed = f"{one.utilisation * 100:.3g} %"
    assert answer(0.5 * one.utilisation) == (
        False,
        f"does not pay at {0.5 * one.utilisation * 100:.3g} % use: it would need {needed}",
    )
    pays, text = answer(0.5, rent=1.1)
    assert not pays
    assert text.startswith("never pays: it would need ")
    assert text.endswith(" % of its life")
    assert answer(0.5, rent=0.01) == (False, "never pays: electricity costs more than that rent")


def test_break_even_says_what_use_it_assumes() -> None:
    own = made("own", rent=None, purchase=50_000.0)
    for use in (0.25, 0.5):
        economics = replace(KNOWN, utilisation=use)
        (one,) = compare(WORKLOAD, [own, made("a", rent=20.0)], terms=terms(economics=economics)).break_evens
        assert one.assumed_utilisation == use
        assert one.life_runs == pytest.approx(use * KNOWN.life_years * 365.25 * 24 * HOUR_S * one.runs / one.use_s)


def _cases(found: Comparison) -> dict[str, tuple[str, bool | None]]:
    return {one.change: (one.best, one.changes) for one in found.sensitivities}


def test_sensitivity_says_when_the_answer_changes() -> None:
    close = compare(WORKLOAD, [made("a", rent=10.0), made("b", rent=11.0)], terms=terms(rank_by="cost"))
    cases = _cases(close)
    assert cases["a is 20 % dearer"] == ("b", True)
    assert cases["a is 20 % cheaper"] == ("a", False)
    assert "what is bought is used half as much" not in cases, "nothing would be bought"
    twice = next(one for one in close.sensitivities if one.change == "the run is twice as long")
    assert twice.time_s is not None
    assert twice.time_s.value == pytest.approx(2 * close.rows[0].account.time_s.value, rel=0.02)
    life = compare(WORKLOAD, [made("own", rent=None, purchase=100_000.0), made("a", rent=6.0)], terms=terms(rank_by="cost"))
    assert life.verdict.best == "own"
    assert _cases(life)["what is bought is used half as much"] == ("a", True)


@pytest.mark.parametrize("rank_by", ["time", "energy"])
def test_what_a_figure_that_nobody_knows_would_change_cannot_be_told(rank_by: Any) -> None:
    found = compare(
        WORKLOAD, [made("a", rent=None, power=None), made("b", speed=0.5, rent=None, power=None)], terms=terms(rank_by=rank_by)
    )
    cases = _cases(found)
    assert found.verdict.best == "a"
    assert all((case == ("", None)) == (rank_by != "time") for case in cases.values())
    assert "a is 20 % dearer" not in cases
    assert rank_by != "time" or cases["the run is twice as long"] == ("a", False)


@pytest.mark.parametrize("rank_by", ["time", "energy"])
def test_money_that_decides_nothing_is_not_said_to_leave_the_recommendation_standing(rank_by: Any) -> None:
    owned = [made("a", rent=None, purchase=90_000.0), made("b", speed=0.8, rent=None, purchase=30_000.0)]
    assert set(_cases(compare(WORKLOAD, owned, terms=terms(rank_by=rank_by)))) == {"the run is twice as long"}
    plain = compare(WORKLOAD, owned, terms=terms(rank_by=rank_by)).rows[0].account.cost_usd
    assert plain is not None
    limited = compare(replace(WORKLOAD, budget_usd=1.1 * plain.value), owned, terms=terms(rank_by=rank_by))
    cases = _cases(limited)
    assert cases[f"{limited.rows[0].label} is 20 % dearer"][1] is True
    assert "what is bought is used half as much" in cases


def test_a_price_changes_for_every_candidate_of_its_system() -> None:
    """Twins of the recommended, and other numbers of its nodes, become dearer with it: none of them is taken instead."""
    one = made("a")
    twin = Offer(sizes=(one,), hypothetical="cores = 79")
    found = compare(WORKLOAD, [Offer(sizes=(one,)), twin, made("b", rent=11.5)], terms=terms(rank_by="cost"))
    assert {found.rows[0].label, found.rows[1].label} == {"a", "a with cores = 79"}
    assert _cases(found)["a is 20 % dearer"] == ("b", True)


def test_twice_the_run_may_miss_the_deadline() -> None:
    plain = compare(WORKLOAD, [made("a")], terms=terms())
    late = replace(WORKLOAD, deadline_s=1.5 * plain.rows[0].account.time_s.value)
    found = compare(late, [made("a")], terms=terms())
    assert _cases(found)["the run is twice as long"] == ("", True)


def test_the_verdict_says_how_sure_it_is() -> None:
    found = compare(WORKLOAD, [made("a"), made("b", speed=0.7)], terms=terms()).verdict
    assert found.probability is not None
    assert found.probability_independent is not None
    assert 0.5 < found.probability_independent < found.probability < 0.99
    assert f"with a probability of {found.probability * 100:.0f} % " in found.sentence
    assert f"({found.probability_independent * 100:.0f} % if candidates shared no errors)" in found.sentence
    assert "share 50 % of the variance of their errors, and with the same device 68 %; " in found.details[0]
    certain = compare(WORKLOAD, [made("a"), made("b", speed=0.01)], terms=terms()).verdict
    assert certain.probability == 1.0
    assert "with a probability of over 99 % (over 99 % if" in certain.sentence
