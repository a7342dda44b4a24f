"""The Python API: `txlplan.compare` and what it gives."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

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


def advised(**changes: Any) -> Advice:
    """Of one small candidate."""
    return txlplan.compare(**{"model": "demo-bytes", "tokens": 1e8, "on": ["p3.2xlarge"], "today": TODAY, **changes})


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
    assert "; of what exists, the first is p3.16xlarge, in " in found.verdict


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


def test_a_price_is_stated_under_the_name_typed_or_the_id(tmp_path: Path) -> None:
    box = tmp_path / "box.toml"
    box.write_text('name = "box"\nkind = "server"\ndevice = "v100-sxm2-16gb"\nn_devices = 1\n')
    on = ["local", str(box)]
    local = advised(on=on).comparison.rows
    (own_id,) = {row.best.candidate.cluster.system.id for row in local if row.best} - {"box"}
    for names in (("local", str(box)), (own_id, "box")):
        found = advised(on=on, prices=dict(zip(names, ("2/h", "10/h"), strict=True)))
        rents = {row.label: row.account.price.rent_usd_per_h for row in found.comparison.rows if row.account.price}
        assert rents == {own_id: 2.0, "box": 10.0}
    with pytest.raises(InputError, match=r"'1/h' is the second of its kind, on-demand"):
        advised(on=["local"], prices={"local": "2/h", own_id: "1/h"})


def test_a_stated_price_replaces_newer_ones() -> None:
    early = datetime.date(2026, 6, 1)
    assert systems.get("p3.16xlarge").price("on-demand").date < "2026-11-24"
    for today in (early, TODAY, datetime.date(2010, 1, 1)):
        found = txlplan.compare(model="demo-bytes", tokens=1e8, on=["p3.16xlarge"], prices={"p3.16xlarge": "1/h"}, today=today)
        assert found.comparison.rows[0].account.price.rent_usd_per_h == 1.0


def test_rent_spot_and_purchase_may_all_be_stated(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(
        'model = "demo-bytes"\ntokens = "100M"\non = ["p3.2xlarge", "dgx-1"]\n'
        '[prices]\n"p3.2xlarge" = ["2 USD/h", "spot 1 USD/h", "9000 USD"]\ndgx-1 = "50000 USD"\n'
    )
    found = txlplan.compare(path, today=TODAY)
    (row,) = [row for row in found.comparison.rows if row.label == "p3.2xlarge"]
    assert {one.way: one.price.rent_usd_per_h or one.price.purchase_usd for one in row.best.accounts} == {
        "rent": 2.0,
        "spot": 1.0,
        "buy": 9000.0,
    }
    note = "the spot price that is stated for p3.2xlarge is used with --pay spot only"
    assert note in found.comparison.warnings
    assert note not in txlplan.compare(path, pay="spot", today=TODAY).comparison.warnings
    other = txlplan.compare(path, prices={"p3.2xlarge": "3/h"}, today=TODAY).scenario.prices
    assert other == {"p3.2xlarge": "3/h", "dgx-1": "50000 USD"}, "a price stated over a file's leaves those of other systems"
    with pytest.raises(InputError, match=r"price of p3\.2xlarge: 'spot 2/h' is the second of its kind, spot"):
        advised(prices={"p3.2xlarge": ["spot 1/h", "spot 2/h"]})
    with pytest.raises(InputError, match=r"price of p3\.2xlarge"):
        advised(prices={"p3.2xlarge": "spotty 7/h"})
    with pytest.raises(ConfigError, match=r"prices\.p3\.2xlarge"):
        advised(prices={"p3.2xlarge": 5})


def test_a_part_that_saves_power_saves_it() -> None:
    """What a node draws beside its devices stays as it is, whatever the hypothetical ones draw."""

    def electricity(**changes: str) -> float:
        what_if = [{"like": "v100-sxm2-16gb", "set": changes}]
        found = txlplan.compare(model="demo-bytes", tokens=1e8, on=["dgx-1"], pay="buy", what_if=what_if, today=TODAY)
        (twin,) = [row for row in found.comparison.rows if row.offer.hypothetical]
        (real,) = [row for row in found.comparison.rows if not row.offer.hypothetical]
        system, devices_w = twin.best.candidate.cluster.system, 8 * twin.best.candidate.cluster.device.power_w
        known = systems.get("dgx-1")
        assert system.power_w - devices_w == pytest.approx(known.power_w - 8 * devices.get("v100-sxm2-16gb").power_w)
        return twin.account.electricity_usd.value / real.account.electricity_usd.value

    assert electricity(power="150 W", power_idle="20 W") < 0.95 < 1.05 < electricity(power="600 W")


def test_what_is_unknown_is_not_passed() -> None:
    found = txlplan.compare(model="nvidia-wt103-large", tokens=1e8, on=["dgx-h100"], today=TODAY).comparison
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
        ("best != 2xp3.16xlarge", "best is p3.2xlarge, not 2x p3.16xlarge"),
        ("best != p3.2xlarge", ""),
        ("best != 1xp3.2xlarge", ""),
        ("stale-prices", "prices older than 90 days: p3.16xlarge (2026-04-01)"),
    ],
)
def test_conditions_hold_or_do_not(advice: Advice, condition: str, said: str) -> None:
    found = missed([condition], advice.comparison)
    assert len(found) == (1 if said else 0)
    assert not said or found[0].startswith(said)


def test_a_condition_on_no_candidate(advice: Advice) -> None:
    with pytest.raises(InputError, match="no candidate has that name"):
        missed(["best != dgx-9"], advice.comparison)


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
