"""The Python API: `txlplan.compare` and what it gives."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from record_factory import make_record

import txlplan
from txlplan.advice import Advice, Scenario, WhatIf, missed
from txlplan.errors import ConfigError, InputError
from txlplan.hardware import Price, devices, systems
from txlplan.records import open_store

TODAY = datetime.date(2026, 11, 24)
ON = ["p3.2xlarge", "1..2xp3.16xlarge"]


@pytest.fixture(scope="module")
def advice() -> Advice:
    return txlplan.compare(model="demo-bytes", tokens=1e8, on=ON, rank_by="cost", today=TODAY)


def test_plain_arguments_are_a_scenario(advice: Advice) -> None:
    assert advice.scenario == Scenario(model="demo-bytes", tokens=100_000_000, on=tuple(ON), rank_by="cost")
    assert str(advice) == advice.verdict
    assert advice.verdict.startswith(f"Rent {advice.best}: it trains demo-bytes on 100 million tokens in ")
    assert advice.probability is not None
    assert 0 < advice.probability <= 1


def test_a_scenario_object_and_a_file_give_the_same(advice: Advice, tmp_path: Path) -> None:
    assert txlplan.compare(advice.scenario, today=TODAY).verdict == advice.verdict
    path = tmp_path / "scenario.toml"
    path.write_text('model = "demo-bytes"\ntokens = "100M"\non = ["p3.2xlarge", "1..2xp3.16xlarge"]\n')
    assert txlplan.compare(path, rank_by="cost", today=TODAY).to_dict() == advice.to_dict()


def test_the_frame_has_a_row_for_every_size(advice: Advice) -> None:
    frame = advice.to_frame()
    assert sorted(frame["candidate"]) == ["2x p3.16xlarge", "p3.16xlarge", "p3.2xlarge"]
    assert frame.loc[0, "candidate"] == advice.best
    assert frame["stands_for_candidate"].sum() == 2
    planned = frame[frame["reason"].isna()]
    assert len(planned) == 3, "8 sequences a step occupy 16 devices where two share a layer, its positions or the layers"
    assert (planned["cost_usd_low"] < planned["cost_usd"]).all()


def test_a_notebook_shows_verdict_and_table(advice: Advice) -> None:
    shown = advice._repr_html_()
    assert shown.startswith("<p><strong>Rent ")
    assert shown.count("<tr>") == 3
    assert "<script" not in shown


def test_html_is_one_file(advice: Advice, tmp_path: Path) -> None:
    path = advice.to_html(tmp_path / "answer.html")
    text = path.read_text()
    assert path.stat().st_size < 6e6
    assert "http" not in text.split("<script>")[0].replace("http-equiv", "")


def test_measured_runs_of_the_candidates_are_found(advice: Advice) -> None:
    assert advice.records() == ()
    store = open_store()
    wanted = make_record(1, device=devices.get("v100-sxm2-16gb"))
    store.put(wanted)
    store.put(make_record(2))
    assert [record.id for record in advice.records()] == [wanted.id]


def test_other_memory_is_other_memory_to_use() -> None:
    def usable(**changes: str) -> int:
        what_if = [{"like": "v100-sxm2-16gb", "set": changes}]
        found = txlplan.compare(model="demo-bytes", tokens=1e8, on=["p3.2xlarge"], what_if=what_if, today=TODAY)
        (twin,) = [row for row in found.comparison.rows if row.offer.hypothetical]
        return twin.best.candidate.cluster.device.usable_bytes()

    whole = usable(power="300 W")
    assert usable(memory="8 GiB") == pytest.approx(whole / 2, rel=1e-6)
    assert usable(memory="8 GiB", memory_usable="5 GiB") == 5 * 2**30


def test_a_what_if_is_a_twin_of_every_candidate_that_holds_the_part() -> None:
    found = txlplan.compare(
        model="demo-bytes",
        tokens=1e8,
        on=["p3.2xlarge", "p3.16xlarge", "g4dn.xlarge"],
        what_if=[{"like": "v100-sxm2-16gb", "set": {"memory": "64 GiB", "memory_usable": "62 GiB"}}],
        today=TODAY,
    )
    twins = [row for row in found.comparison.rows if row.offer.hypothetical]
    assert len(twins) == 2
    for row in twins:
        assert row.best is not None
        assert row.best.candidate.cluster.device.memory_bytes == 64 * 2**30
        assert row.best.planned is not None
        assert row.best.planned.choice.estimate.extrapolated, "nobody measured a part that does not exist"
    assert devices.get("v100-sxm2-16gb").memory_bytes == 16 * 2**30


def test_what_does_not_exist_is_recommended_with_that_caveat() -> None:
    faster = {"like": "v100-sxm2-16gb", "set": {"memory_bandwidth": "9 TB/s", "peak.fp16": "900 TFLOP/s"}}
    found = txlplan.compare(
        model="nvidia-wt103-base", tokens=1e9, on=["p3.16xlarge"], what_if=[faster], rank_by="cost", today=TODAY
    )
    assert found.verdict.startswith("If it existed, rent p3.16xlarge with memory_bandwidth = 9 TB/s, peak.fp16 = 900 TFLOP/s: ")
    assert found.comparison.verdict.details[0] == "Of what exists, the first is p3.16xlarge."


def test_the_users_own_assumptions_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "profiles" / "economics" / "default.toml"
    own.parent.mkdir(parents=True)
    own.write_text('extends = "default"\npue = 1.1\n[sources]\npue = "our machine room, metered"\n')
    monkeypatch.setenv("TXLPLAN_PROFILES", str(own.parents[1]))
    found = txlplan.compare(model="demo-bytes", tokens=1e8, on=["p3.2xlarge"], today=TODAY)
    assert found.comparison.terms.economics.pue == 1.1
    assert found.to_dict()["assumptions"]["sources"]["pue"] == "our machine room, metered"


def test_a_price_book_of_the_user_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = tmp_path / "profiles" / "prices" / "contract.toml"
    book.parent.mkdir(parents=True)
    book.write_text(
        '[[prices]]\nsystem = "p3.2xlarge"\nkind = "on-demand"\nrent = "1.11 USD/h"\n'
        'date = "2026-11-20"\nsource = "our contract"\n'
    )
    monkeypatch.setenv("TXLPLAN_PROFILES", str(book.parents[1]))
    found = txlplan.compare(model="demo-bytes", tokens=1e8, on=["p3.2xlarge"], today=TODAY)
    price = found.comparison.rows[0].account.price
    assert isinstance(price, Price)
    assert (price.rent_usd_per_h, price.source) == (1.11, "our contract")
    assert systems.get("p3.2xlarge").price("on-demand") != price, "the profile itself is untouched"


def test_what_is_unknown_is_not_passed() -> None:
    found = txlplan.compare(model="demo-bytes", tokens=1e8, on=["dgx-h100"], today=TODAY).comparison
    assert missed(["cost > 1e9"], found) == ("cost of dgx-h100 is unknown",)
    assert missed(["probability < 0.1"], found) == ("probability of dgx-h100 is unknown",)
    assert missed(["time > 9000 d", "energy > 90000 MWh"], found) == ()


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("cost > 0.0001", "cost is $"),
        ("cost < 0.0001 USD", ""),
        ("time >= 1 s", "time is "),
        ("time < 1 s", ""),
        ("energy > 1 J", "energy is "),
        ("probability <= 100%", "probability is "),
        ("probability < 0.01", ""),
        ("best != dgx-1", "best is p3.2xlarge, not dgx-1"),
        ("best != p3.2xlarge", ""),
        ("stale-prices", "prices older than 90 days: p3.16xlarge (2026-04-01)"),
    ],
)
def test_conditions_hold_or_do_not(advice: Advice, condition: str, said: str) -> None:
    found = missed([condition], advice.comparison)
    assert len(found) == (1 if said else 0)
    assert not said or found[0].startswith(said)


def test_bad_input(advice: Advice) -> None:
    with pytest.raises(ConfigError, match="unknown key 'modell'"):
        txlplan.compare(modell="demo-bytes", tokens=1e8, on=ON)
    with pytest.raises(ConfigError, match="missing key 'tokens'"):
        txlplan.compare(model="demo-bytes", on=ON)
    with pytest.raises(InputError, match="nothing to compare"):
        txlplan.compare(model="demo-bytes", tokens=1e8, on=[])
    with pytest.raises(InputError, match="not both"):
        txlplan.compare(advice.scenario, tokens=5)
    with pytest.raises(InputError, match="global_batch"):
        txlplan.compare(model="demo-bytes", tokens=1e8, on=ON, global_batch=0)
    with pytest.raises(InputError, match="nothing is changed"):
        txlplan.compare(Scenario(model="demo-bytes", tokens=10, on=("p3.2xlarge",), what_if=(WhatIf(like="t4", set={}),)))
