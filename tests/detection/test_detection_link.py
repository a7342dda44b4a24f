"""How two processes exchange gradients, measured and reckoned."""

from __future__ import annotations

import pytest

from txlplan.detection import usable_cpus
from txlplan.detection._link import link_of, shared_memory_link
from txlplan.errors import TxlplanError


def test_latency_and_bandwidth_give_the_times_back() -> None:
    """Of two processes: 2 hops, each with half of the payload."""
    link = link_of(1e-4, 1e-4 + 2**24 / 2e9)
    assert link.latency_s == pytest.approx(5e-5)
    assert link.all_reduce_bus_bandwidth_bytes_per_s == pytest.approx(2e9, rel=1e-3)


def test_a_machine_that_lingers_over_a_number_has_a_bandwidth_still() -> None:
    link = link_of(5e-2, 2e-2)
    assert link.all_reduce_bus_bandwidth_bytes_per_s == pytest.approx(2**24 / 1e-2, rel=1e-3)


@pytest.mark.skipif(usable_cpus() < 2, reason="there is one CPU")
def test_two_processes_are_measured() -> None:
    link = shared_memory_link(60.0)
    assert link.kind == "shared-memory"
    assert 1e-6 < (link.latency_s or 0.0) < 0.1
    assert 1e7 < (link.all_reduce_bus_bandwidth_bytes_per_s or 0.0) < 1e12


def test_processes_that_take_too_long_are_ended() -> None:
    with pytest.raises(TxlplanError, match="took longer than 0 s"):
        shared_memory_link(0.01)
