"""Candidates ranked by energy: idle devices, and whole nodes where nobody knows what these draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
from offers import STACK, WORKLOAD, candidate, made, terms

from txlplan.errors import NoPlanFitsError
from txlplan.planner import Candidate, Offer, Space, compare, plan, whole_node_plan


def node(idle_w: float | None = None) -> Candidate:
    """Eight devices that small batches cannot fill."""
    one = candidate("p4d.24xlarge")
    device = replace(one.cluster.device, power_idle_w=idle_w)
    return replace(one, cluster=replace(one.cluster, device=device))


SMALL_BATCH = replace(WORKLOAD, global_batch=8)


def test_energy_is_that_of_whole_nodes_where_nobody_knows_what_idle_devices_draw() -> None:
    """One busy device of eight needs less than eight by its own draw: no reason to leave seven idle."""
    fewest = plan(replace(SMALL_BATCH, objective="least-energy"), node().cluster, STACK, simplify=False)
    assert fewest.plan.n_devices < 8
    assert fewest.totals.n_uncounted == 8 - fewest.plan.n_devices
    (row,) = compare(SMALL_BATCH, [node()], terms=terms(rank_by="energy")).rows
    assert row.best is not None
    assert row.best.planned is not None
    assert (row.best.planned.n_devices, row.account.n_uncounted) == (8, 0)
    assert row.account.whole_energy_j == row.account.energy_j
    by_time = compare(replace(WORKLOAD, global_batch=1), [node(), made("one")], terms=terms(rank_by="energy"))
    assert [row.label for row in by_time.ranked] == ["one", "p4d.24xlarge"], "what is unknown in part comes last"
    (_, part) = by_time.rows
    if part.account.n_uncounted:
        assert part.account.whole_energy_j is None
    alone = compare(replace(WORKLOAD, global_batch=1), [node()], terms=terms(rank_by="energy"))
    idle = alone.rows[0].account.n_uncounted
    assert (f" of {8 - idle} of 8 devices: what the idle {idle} draw is unknown" in alone.verdict.sentence) == bool(idle)


def test_plans_of_whole_nodes_come_first_and_are_found_among_all() -> None:
    """What is costed once for both gives what each space would give alone; a size without such a plan has another one."""
    asked, cluster = replace(SMALL_BATCH, objective="least-energy"), node().cluster
    whole = whole_node_plan(asked, cluster, STACK, Space(), runners_up=0)
    alone = plan(asked, cluster, STACK, space=Space(whole_nodes=True), runners_up=0)
    assert (whole.plan, whole.totals) == (alone.plan, alone.totals)
    assert plan(asked, cluster, STACK).plan != whole.plan
    few = Space(data_parallel=(1, 2, 4), tensor_parallel=(1,), pipeline_parallel=(1,), context_parallel=(1,))
    assert whole_node_plan(asked, cluster, STACK, few, runners_up=0) == plan(asked, cluster, STACK, space=few, runners_up=0)
    with pytest.raises(NoPlanFitsError, match="deadline"):
        whole_node_plan(replace(asked, deadline_s=1.0), cluster, STACK, Space())
    offer = Offer(sizes=(node(), replace(node(), cluster=replace(cluster, n_nodes=2))))
    row = compare(SMALL_BATCH, [offer], terms=terms(rank_by="energy"), space=replace(few, data_parallel=(4, 16))).rows[0]
    assert [size.planned.n_devices if size.planned else None for size in row.sizes] == [4, None]


def test_idle_devices_of_known_draw_are_in_the_energy() -> None:
    idle_w = 50.0
    target = replace(WORKLOAD, global_batch=256, objective="least-energy")
    unknown = plan(target, node().cluster, STACK, simplify=False)
    known = plan(target, node(idle_w).cluster, STACK, simplify=False)
    assert known.plan.n_devices > unknown.plan.n_devices, "seven idle ones cost more than they save"
    assert known.totals.n_uncounted == 0
    dear = replace(SMALL_BATCH, global_batch=1)
    row = compare(dear, [node(idle_w)], terms=terms(rank_by="energy")).rows[0]
    assert row.best is not None
    assert row.best.planned is not None
    found, account = row.best.planned, row.account
    step = found.choice.estimate
    assert step.energy_j_per_step is not None
    assert account.energy_j is not None
    busy_j = step.energy_j_per_step.value / step.step_s.value * account.time_s.value
    idle_j = (8 - found.n_devices) * idle_w * account.time_s.value
    assert account.energy_j.value == pytest.approx(busy_j + idle_j)
    assert account.whole_energy_j == account.energy_j
