"""Probabilities from ranges, and what errors candidates have in common."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from offers import TODAY, WORKLOAD, candidate, terms

from txlplan.estimates import Range
from txlplan.hardware import Price, economics, with_prices
from txlplan.planner import Candidate, compare
from txlplan.planner._probability import Origin, Shares, probability_least, probability_less, probability_within

ONE, OTHER = (Origin(stack="s", device="d", setup=place) for place in range(2))
SD = 0.3
FACTOR = math.exp(1.2816 * SD)


def spread(value: float, factor: float = FACTOR) -> Range:
    return Range(value=value, low=value / factor, high=value * factor)


def phi(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@pytest.mark.parametrize(
    ("other", "shares", "common"),
    [
        (OTHER, Shares(stack=0.0, device=0.0), 0.0),
        (OTHER, Shares(stack=0.5, device=0.0), 0.5),
        (OTHER, Shares(stack=0.5, device=0.3), 0.8),
        (replace(OTHER, device="e"), Shares(stack=0.5, device=0.3), 0.5),
        (replace(OTHER, stack="t"), Shares(stack=0.5, device=0.3), 0.0),
        (replace(ONE, stack="t"), Shares(stack=1.0, device=0.0), 0.0),
    ],
)
def test_of_two_candidates_it_is_that_of_the_difference_of_what_they_do_not_share(
    other: Origin, shares: Shares, common: float
) -> None:
    """Two log-normal values with sd 0.3 each: P = Phi(ln(1.2) / (0.3 sqrt(2) sqrt(1 - common)))."""
    assert shares.common(ONE, other) == shares.common(other, ONE) == common
    expected = phi(math.log(1.2) / (SD * math.sqrt(2 * (1 - common))))
    assert probability_least([spread(1.0), spread(1.2)], [ONE, other], 0, shares=shares) == pytest.approx(expected, abs=0.01)
    assert probability_less(spread(1.0), spread(1.2), shared_error=common) == pytest.approx(expected, abs=1e-4)


def test_one_prediction_has_one_error() -> None:
    shares = Shares(stack=0.5, device=0.3)
    assert shares.common(ONE, replace(ONE)) == 1.0
    assert probability_least([spread(1.0), spread(1.01)], [ONE, ONE], 0, shares=shares) == 1.0
    assert probability_least([spread(1.0), spread(1.0)], [ONE, ONE], 0, shares=shares) == 0.5, "equal ones share the lead"
    everything = Shares(stack=1.0, device=0.0)
    assert probability_least([spread(1.0), spread(1.2)], [ONE, OTHER], 0, shares=everything) == 1.0
    assert probability_less(spread(1.0), spread(1.2), shared_error=1.0) == 1.0
    assert probability_less(spread(1.0, 1.0), spread(1.0, 1.0), shared_error=0.0) == 0.5


def test_unlike_ranges_agree_with_the_closed_form() -> None:
    pair = spread(1.0), spread(1.2, FACTOR**1.5)
    for shares in (Shares(stack=0.0, device=0.0), Shares(stack=0.5, device=0.2), Shares(stack=0.5, device=0.4)):
        drawn = probability_least(pair, [ONE, OTHER], 0, shares=shares)
        assert probability_less(*pair, shared_error=shares.common(ONE, OTHER)) == pytest.approx(drawn, abs=0.01)


def test_an_uneven_range_counts_from_its_middle() -> None:
    """An 80 % range from 1 to 4 is met by 2 with a probability of one half, wherever in it the value lies."""
    for value in (1.1, 2.0, 3.9):
        energy = Range(value=value, low=1.0, high=4.0)
        assert probability_within(energy, 2.0) == pytest.approx(0.5)
        assert probability_within(energy, 4.0) == pytest.approx(0.9, abs=1e-4)
        assert probability_within(energy, 1.0) == pytest.approx(0.1, abs=1e-4)
        assert probability_less(energy, spread(2.0), shared_error=0.0) == pytest.approx(0.5)
        chance = probability_least([energy, spread(2.0)], [ONE, OTHER], 0, shares=Shares(stack=0.0, device=0.0))
        assert chance == pytest.approx(0.5, abs=0.01)


def at(system: str, usd_per_h: float) -> Candidate:
    one = candidate(system)
    price = Price(kind="on-demand", rent_usd_per_h=usd_per_h, date=TODAY.isoformat(), source="test")
    return replace(one, cluster=replace(one.cluster, system=with_prices(one.cluster.system, [price])))


def test_two_clouds_that_rent_the_same_devices_differ_in_their_price_alone() -> None:
    """Eight A100 with the same links at $22 and $29 an hour: whatever the error of the time is, both have it."""
    clouds = [at("p4d.24xlarge", 22.0), at("a2-highgpu-8g", 29.0)]
    verdict = compare(WORKLOAD, clouds, terms=terms(rank_by="cost")).verdict
    assert verdict.best == "p4d.24xlarge"
    assert verdict.probability is not None
    assert verdict.probability_independent is not None
    assert verdict.probability > 0.99 > 0.9 > verdict.probability_independent
    other = compare(WORKLOAD, [clouds[0], at("dgx-1", 12.0)], terms=terms(rank_by="cost")).verdict
    assert other.probability is not None
    assert other.probability < 0.99, "another device has an error of its own"


def test_the_share_of_devices_is_of_what_the_stack_leaves() -> None:
    known = economics.get("default")
    assert Shares.of(replace(known, shared_error=0.5, shared_device_error=0.5)) == Shares(stack=0.5, device=0.25)
    assert Shares.of(replace(known, shared_error=1.0, shared_device_error=1.0)) == Shares(stack=1.0, device=0.0)
