"""Records estimated again with the profiles that are there now."""

from __future__ import annotations

import pytest
from record_factory import make_record

from txlplan.cost import estimate
from txlplan.hardware import Cluster, devices, stacks, systems
from txlplan.validation import Row, Unscored, validate


def test_a_record_is_scored_by_an_estimate_made_now():
    record = make_record(system="generic-cpu", stack="txlplan-cpu")
    cluster = Cluster(system=systems.get("generic-cpu"), device=devices.get("generic-cpu"))
    now = estimate(record.workload, cluster, stacks.get("txlplan-cpu"), [record.plan])[0]
    (before,), (again,) = validate([record]).rows, validate([record], again=True).rows
    assert isinstance(again, Row)
    assert again.tokens_per_s.predicted == pytest.approx(now.tokens_per_s.value)
    assert again.tokens_per_s.measured == before.tokens_per_s.measured
    assert before.tokens_per_s.predicted == record.estimate.tokens_per_s.value != again.tokens_per_s.predicted


def test_what_cannot_be_estimated_again_says_why():
    (found,) = validate([make_record(system="generic-cpu", stack="gone")], again=True).unscored
    assert isinstance(found, Unscored)
    assert "gone" in found.reason
