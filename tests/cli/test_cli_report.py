"""`txlplan report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record_factory import make_family, make_model, make_record

from txlplan.records import open_store
from txlplan.workload import Workload


@pytest.fixture
def family(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [*make_family(), make_record(2)]
    open_store().put_all(found)
    return found


def test_the_newest_run_and_its_trials(txlplan, family, tmp_path):
    result = txlplan("report", "--json")
    assert result.exit_code == 0
    assert set(result.json["records"]) == {record.id for record in family[:-1]}
    assert result.json["verdict"].startswith("demo-bytes trained at")
    assert (tmp_path / "report.html").is_file()


def test_a_run_without_a_step_is_not_the_newest(txlplan, family):
    empty = make_record(70, steps=0, outcome="stopped")
    open_store().put_all([empty])
    reported = txlplan("report", "--json").json
    assert set(reported["records"]) == {record.id for record in [*family[:-1], empty]}
    assert reported["verdict"].startswith("demo-bytes trained at")


def test_what_was_scored_since_is_in_the_report(txlplan, family):
    later = make_record(70, workload=Workload(model=make_model(), task="score"))
    other = make_record(71, workload=Workload(model=make_model(id="another"), task="score"))
    open_store().put_all([later, other])
    assert set(txlplan("report", "--json").json["records"]) == {record.id for record in [*family[:-1], later]}


def test_what_was_scored_with_another_runs_weights_is_not_credited_to_it(txlplan, family):
    """Nor what was generated, though their model is the same."""
    model = make_model()
    own, others = f"{family[0].run_directory}/../demo/checkpoints/step-9", "/home/ada/runs/demo-before"
    scored = make_record(70, workload=Workload(model=model, task="score"), bits_per_character=1.5, weights_from=own)
    told = make_record(71, workload=Workload(model=model, task="generate"), text="By it.", weights_from=own)
    worse = make_record(72, workload=Workload(model=model, task="score"), bits_per_character=5.5, weights_from=others)
    other = make_record(73, workload=Workload(model=model, task="generate"), text="By another.", weights_from=others)
    open_store().put_all([scored, told, worse, other])
    assert set(txlplan("report", "--json").json["records"]) == {record.id for record in [*family[:-1], scored, told]}
    named = txlplan("report", family[0].id, scored.id, told.id, worse.id, other.id, "--output", "all.md")
    assert named.exit_code == 0, named.stderr
    page = Path("all.md").read_text(encoding="utf-8")
    assert "1.5" in page.split("Held-out score:")[1].splitlines()[0]
    assert "By it." in page
    assert "By another." not in page


def test_it_says_what_it_covers_and_how_to_choose_another(txlplan, family):
    told = txlplan("report")
    assert f"report.html: 4 records (the newest training run, {family[0].id}, its trials" in told.stdout
    assert "note: the store holds 1 other group, each a run, a part of a resumed one, or a benchmark: `txlplan" in told.stderr
    open_store().put_all([make_record(seed, kind="bench", parent="b1") for seed in (3, 4)])
    document = txlplan("report", "--json")
    assert document.json["other_groups"] == 2, "repeats of a benchmark are one"
    assert "2 other groups" in document.stderr
    named = txlplan("report", family[-1].id)
    assert f"report.html: 1 record ({family[-1].id})" in named.stdout
    assert "note" not in named.stderr, "it was chosen"


def test_of_benchmarks_alone_the_newest_is_covered(txlplan, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store().put_all([make_record(seed, kind="bench", parent=f"b{seed // 3}") for seed in (1, 2, 3)])
    document = txlplan("report", "--json").json
    assert (document["covers"], document["other_groups"]) == ("the newest benchmark, b1", 1)


def test_the_output_tells_the_format(txlplan, family, tmp_path):
    for name in ("r.md", "r.csv", "r.json", "r.htm"):
        assert txlplan("report", "-o", tmp_path / name).exit_code == 0
    assert json.loads((tmp_path / "r.json").read_text())["subject"] == family[0].id
    assert (tmp_path / "r.md").read_text().startswith("# demo-bytes")
    assert txlplan("report", "-o", tmp_path / "r.pdf").exit_code == 2
    assert txlplan("report", "-o", tmp_path / "plain", "--format", "md").exit_code == 0
    assert txlplan("report", "--format", "csv").exit_code == 0
    assert (tmp_path / "report.csv").is_file()


def test_named_records_bring_their_trials(txlplan, family):
    assert txlplan("report", family[-1].id, "--format", "json", "--json").json["records"] == [family[-1].id]
    both = txlplan("report", family[-1].id, family[0].id, "--format", "json", "--json").json
    assert len(both["records"]) == 5
    assert txlplan("report", "nobody").exit_code == 2


def test_a_benchmark_is_named_by_its_parent(txlplan, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store().put_all([make_record(seed, kind="bench", parent="b1") for seed in (1, 2)])
    assert len(txlplan("report", "b1", "--format", "md", "--json").json["records"]) == 2
    assert len(txlplan("report", "--format", "md", "--json").json["records"]) == 2


def test_an_empty_store_is_told(txlplan):
    result = txlplan("report", "--json")
    assert result.exit_code == 2
    assert "no records" in result.json["error"]["message"]
