"""`txlplan.plan`, as a notebook calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import txlplan
from txlplan.errors import ConfigError, InputError
from txlplan.plan_file import read_plan_file
from txlplan.planner import standing

ASKED: dict[str, Any] = {"model": "nvidia-wt103-base", "system": "p3.16xlarge", "tokens": 1.8e9}


def test_a_plan_in_every_form(tmp_path: Path) -> None:
    found = txlplan.plan(**ASKED, runnable=True, explain=True)
    assert found.plan == found.choice.plan == found.plan_file.plan
    assert str(found).startswith("Train nvidia-wt103-base on p3.16xlarge with micro_batch")
    assert "1,800,000,000 tokens in" in found.sentence
    frame = found.to_frame()
    assert list(frame["offered"]) == [True] + [False] * len(found.choice.runners_up)
    assert frame["tokens_per_s"][0] == found.estimate.tokens_per_s.value
    assert (frame["tokens_per_s_low"] < frame["tokens_per_s_high"]).all()
    shown = found._repr_html_()
    assert shown.count("<tr>") == 2 + len(found.choice.runners_up)
    assert "<script" not in shown
    assert read_plan_file(found.write(tmp_path / "plan.toml")) == found.plan_file
    assert "Not chosen" in found.to_html(tmp_path / "plan.html").read_text()


def test_the_command_asks_as_a_notebook_does(txlplan: Any) -> None:  # the fixture hides the module
    from txlplan import advice

    asked = ("--model", "nvidia-wt103-base", "--system", "p3.16xlarge", "--tokens", "1.8e9", "--without", "zero,offload")
    document = txlplan("plan", *asked, "--json").json
    assert document == {**advice.plan(**ASKED, without=["zero", "offload"]).to_dict(), "path": None}


def test_limits_are_text_with_units_and_names_are_checked() -> None:
    found = txlplan.plan(**ASKED, deadline="3 d", budget="5000 USD", objective="cheapest")
    assert found.plan_file.workload.deadline_s == 3 * 86400
    with pytest.raises(ConfigError, match="unknown key 'tokns'") as caught:
        txlplan.plan(model="demo-bytes", tokns=1e6)
    assert caught.value.hint == "did you mean 'tokens'?"
    with pytest.raises(InputError, match="'fastes' is not known"):
        txlplan.plan(**ASKED, objective="fastes")
    with pytest.raises(InputError, match="cannot be written"):
        found.write("/proc/plan.toml")


@pytest.mark.parametrize(
    ("behind", "said"),
    [(0.056, "5.6 % worse"), (-0.073, "7.3 % better"), (-1e-9, "as good"), (0.0, "as good"), (None, "out")],
)
def test_how_a_plan_stands(behind: float | None, said: str) -> None:
    assert standing(behind) == said


def test_plan_and_compare_cost_the_same_plan_alike() -> None:
    """One question, one number: of the steps, with the clipping that training does where nobody says otherwise."""
    (row,) = txlplan.compare(model=ASKED["model"], tokens=ASKED["tokens"], on=[ASKED["system"]]).comparison.rows
    assert row.best is not None
    assert row.best.planned is not None
    best, found = row.best.planned.choice, txlplan.plan(**ASKED)
    costed = [(found.plan, found.estimate), *((one.plan, one.estimate) for one in found.choice.runners_up)]
    (estimate,) = [estimate for plan, estimate in costed if plan == best.plan]
    assert estimate == best.estimate
    assert row.account.duration.steps_s == pytest.approx(ASKED["tokens"] / estimate.tokens_per_s.value)


PARALLEL = ["tensor-parallel", "pipeline-parallel", "context-parallel"]


def test_least_energy_leaves_no_device_of_a_node_idle_where_nobody_knows_what_it_draws() -> None:
    found = txlplan.plan(**ASKED, objective="least-energy")
    assert found.plan.n_devices == 8
    assert found.choice.totals.n_uncounted == 0
    assert found.caveats[-1].startswith("Plans that leave devices of a node idle were not considered")
    one = txlplan.plan(**ASKED, objective="least-energy", global_batch=1, without=PARALLEL)
    idle = one.choice.totals.n_uncounted
    assert idle == 8 - one.plan.n_devices > 0
    assert one.caveats[-1].startswith(f"What {idle} idle devices of the occupied nodes draw is unknown")
