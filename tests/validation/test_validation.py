"""Scores and their statistics, against NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_estimate, make_failed, make_family, make_record

from txlplan.validation import Row, Scored, Unscored, errors, score, validate

positive = st.floats(1e-3, 1e12)


@given(st.lists(st.tuples(positive, positive, st.floats(1, 3), st.floats(1, 3)), min_size=1, max_size=30))
def test_statistics_equal_numpy(cases):
    scored = [Scored(predicted=p, low=p / a, high=p * b, measured=m) for p, m, a, b in cases]
    predicted, measured = np.array([c[0] for c in cases]), np.array([c[1] for c in cases])
    signed = predicted / measured - 1
    found = errors(scored)
    assert found.n == len(cases)
    assert found.mape == pytest.approx(np.abs(signed).mean())
    assert found.median == pytest.approx(np.median(np.abs(signed)))
    assert found.p90 == pytest.approx(np.percentile(np.abs(signed), 90))
    assert found.bias == pytest.approx(signed.mean(), abs=1e-12 * np.abs(signed).sum())
    assert found.coverage == np.mean([s.low <= s.measured <= s.high for s in scored])


def test_nothing_measured_is_unknown_not_zero():
    found = errors([Scored(predicted=1.0, low=0.5, high=2.0, measured=None)])
    assert (found.n, found.mape, found.median, found.p90, found.bias, found.coverage) == (0, None, None, None, None, None)


def test_a_row_by_hand():
    row = score(make_record(estimate=make_estimate(1100.0, 500.0), tokens_per_s=1000.0, peak_memory_bytes=1000))
    assert isinstance(row, Row)
    assert row.tokens_per_s.relative_error == pytest.approx(0.1)
    assert row.tokens_per_s.inside is True
    assert row.peak_memory_bytes.relative_error == pytest.approx(-0.5)
    assert row.peak_memory_bytes.inside is False
    assert (row.fits_predicted, row.fits_measured) == (True, True)


def test_a_run_out_of_memory_tells_only_that_it_did_not_fit():
    row = score(make_record(outcome="oom"))
    assert isinstance(row, Row)
    assert row.fits_measured is False
    assert row.tokens_per_s.relative_error is None
    assert row.peak_memory_bytes.inside is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (make_record(estimate=None), "no estimate was made before the run"),
        (make_record(outcome="running"), "still running"),
        (make_record(steps=0, outcome="stopped"), "ended before its first step"),
        (make_failed(), "failed: loss is not finite at step 121"),
        (make_failed(message=""), "failed"),
    ],
)
def test_what_cannot_be_scored_says_why(record, reason):
    assert score(record) == Unscored(id=record.id, reason=reason)


def test_groups_cover_every_row():
    found = validate([*make_family(), make_record(estimate=None)])
    assert len(found.rows) == 4
    assert len(found.unscored) == 1
    assert set(found.groups) == {"device", "model", "precision", "task", "n_devices", "stack"}
    for groups in found.groups.values():
        assert sum(summary.tokens_per_s.n for summary in groups.values()) == found.overall.tokens_per_s.n == 4


def test_no_records_give_no_figures():
    found = validate([])
    assert found.rows == ()
    assert found.overall.tokens_per_s.mape is None
    assert found.groups["device"] == {}
