"""Orders of measured and predicted speeds, by hand and against all pairs counted one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_estimate, make_record

from txlplan.hardware import devices
from txlplan.validation import Row, rank, score

PEAKS = {name: devices.get(name) for name in ("v100-sxm2-16gb", "a100-sxm4-40gb")}


def row(
    device: str, predicted: float, measured: float, *, n_devices: int = 1, stack: str = "s", precision: str = "fp16"
) -> Row:
    found = score(make_record(estimate=make_estimate(predicted, 1.0), tokens_per_s=measured))
    assert isinstance(found, Row)
    return replace(found, device=device, n_devices=n_devices, stack=stack, precision=precision)


def test_by_hand():
    rows = [
        row("v100-sxm2-16gb", 90.0, 100.0),
        row("a100-sxm4-40gb", 330.0, 300.0),
        row("a100-sxm4-40gb", 80.0, 200.0),
        row("a100-sxm4-40gb", 500.0, 1.0, stack="another"),
    ]
    found = rank(rows, PEAKS)
    assert found.predicted.pairs == 2
    assert found.predicted.right == 0.5
    assert found.predicted.ratio_error == pytest.approx((330 / 90 / 3 - 1 + 1 - 80 / 90 / 2) / 2)
    assert found.by_peak.right == 1.0
    ratio = 312 / 125
    assert found.by_peak.ratio_error == pytest.approx((abs(ratio / 3 - 1) + abs(ratio / 2 - 1)) / 2)
    assert (found.systems, found.choice_loss) == (1, 0.0)


def test_a_wrong_choice_costs_what_the_best_setting_would_have_given():
    found = rank([row("a100-sxm4-40gb", 1.0, 100.0), row("a100-sxm4-40gb", 2.0, 75.0)], PEAKS)
    assert found.choice_loss == pytest.approx(0.25)
    assert found.predicted.pairs == 0
    assert found.predicted.right is None


def test_rows_as_fast_as_each_other_and_unknown_devices_tell_nothing():
    assert rank([row("v100-sxm2-16gb", 1.0, 100.0), row("a100-sxm4-40gb", 2.0, 109.0)], PEAKS).predicted.pairs == 0
    unknown = rank([row("v100-sxm2-16gb", 1.0, 100.0), row("abacus", 2.0, 200.0)], PEAKS)
    assert (unknown.predicted.pairs, unknown.by_peak.pairs) == (1, 0)


cases = st.lists(
    st.tuples(st.sampled_from(sorted(PEAKS)), st.integers(1, 3), st.floats(1, 1e4), st.floats(1, 1e4)), min_size=2, max_size=12
)


@given(cases)
def test_every_pair_counts_once(found):
    rows = [row(device, predicted, measured, n_devices=n) for device, n, predicted, measured in found]
    pairs = right = 0
    for one in rows:
        for other in rows:
            if (one.device, one.n_devices) != (other.device, other.n_devices):
                a, b = one.tokens_per_s, other.tokens_per_s
                if a.measured > b.measured * 1.1:
                    pairs += 1
                    right += a.predicted > b.predicted
    order = rank(rows, PEAKS).predicted
    assert order.pairs == pairs
    assert order.right == (pytest.approx(right / pairs) if pairs else None)


def test_perfect_predictions_are_in_order():
    rows = [row(device, 10.0 * n, 10.0 * n, n_devices=n) for device in PEAKS for n in (1, 2, 4)]
    found = rank(rows, PEAKS)
    assert (found.predicted.right, found.predicted.ratio_error) == (1.0, 0.0)
