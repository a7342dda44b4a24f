"""Ranking of candidates."""

from __future__ import annotations

import pytest

from txlplan.errors import ConfigError, InputError, NoPlanFitsError
from txlplan.hardware import StackProfile
from txlplan.model import ModelConfig
from txlplan.planner import Candidate, compare
from txlplan.workload import Workload

STACK = StackProfile(id="plain", family="txlplan", version="0")
WORKLOAD = Workload(
    model=ModelConfig(
        id="m", n_layer=4, d_model=512, n_head=8, d_head=64, d_inner=2048, vocab_size=10_000, tgt_len=64, mem_len=64
    ),
    tokens=10**9,
)


def _candidate(system: str, **options: int) -> Candidate:
    from txlplan.hardware import devices, systems

    profile = systems.get(system)
    return Candidate.from_profiles(profile, devices.get(profile.device), stack=STACK, **options)  # type: ignore[arg-type]


def test_rank_by_time_and_by_cost() -> None:
    candidates = [_candidate("p3.16xlarge"), _candidate("dgx-a100-40gb"), _candidate("p3.2xlarge")]
    by_time = compare(WORKLOAD, candidates)
    times = [row.choice.totals.time_s.value for row in by_time.rows if row.choice and row.choice.totals.time_s]
    assert len(times) == 3
    assert times == sorted(times)
    assert by_time.verdict.startswith("dgx-a100-40gb is fastest")
    by_cost = compare(WORKLOAD, candidates, rank_by="cost")
    costs = [row.choice.totals.cost_usd for row in by_cost.rows if row.choice]
    assert costs[-1] is None, "an unknown price comes after known ones"
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0].value <= costs[1].value


def test_what_does_not_fit_comes_last_with_its_reason() -> None:
    huge = Workload(
        model=ModelConfig(
            id="huge", n_layer=48, d_model=4096, n_head=32, d_head=128, d_inner=16384, vocab_size=1000, tgt_len=64, mem_len=64
        ),
        tokens=10**9,
        global_batch=8,
    )
    with pytest.raises(NoPlanFitsError, match="fits none of 1 candidates"):
        compare(huge, [_candidate("p3.2xlarge")])
    found = compare(WORKLOAD, [_candidate("p3.2xlarge"), _candidate("dgx-1", n_devices=2)])
    assert all(row.choice for row in found.rows)
    assert {row.candidate.label for row in found.rows} == {"p3.2xlarge", "dgx-1 (2 of 8 devices)"}


def test_bad_input() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare(WORKLOAD, [])
    with pytest.raises(InputError, match="tokens"):
        compare(Workload(model=WORKLOAD.model), [_candidate("dgx-1")])
    with pytest.raises(ConfigError, match="unknown system"):
        Candidate.of("dgx-one")
    with pytest.raises(InputError, match="evenly"):
        _candidate("dgx-1", n_devices=9)
