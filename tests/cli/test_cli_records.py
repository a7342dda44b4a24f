"""`txlplan records` and `txlplan validate`."""

from __future__ import annotations

import csv

import pytest
from record_factory import make_failed, make_family, make_record

from txlplan.records import open_store


@pytest.fixture
def family(home):
    found = [*make_family(), make_failed()]
    open_store().put_all(found)
    return found


def test_list_prints_a_plain_table(txlplan, family):
    result = txlplan("records", "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].split()[:4] == ["id", "kind", "outcome", "task"]
    assert "next: txlplan records show" in result.stderr


def test_list_filters(txlplan, family):
    assert [record["outcome"] for record in txlplan("records", "list", "--outcome", "failed", "--json").json] == ["failed"]
    assert len(txlplan("records", "list", "--kind", "trial", "--json").json) == 3
    assert len(txlplan("records", "list", "--limit", 2, "--json").json) == 2
    assert txlplan("records", "list", "--model", "nobody", "--json").json == []
    parents = [record.parent for record in family if record.parent]
    assert len(txlplan("records", "list", "--parent", parents[0], "--json").json) == parents.count(parents[0]) > 0


def test_an_empty_store_says_so(txlplan):
    result = txlplan("records", "list")
    assert result.exit_code == 0
    assert "no such record" in result.stderr


def test_list_closes_interrupted_runs(txlplan, home):
    import socket

    from record_factory import make_environment

    gone = make_record(outcome="running", process_id=2**22 + 5, environment=make_environment(hostname=socket.gethostname()))
    open_store().put(gone)
    assert "interrupted" in txlplan("records", "list").stderr
    assert open_store().get(gone.id).outcome == "failed"


def test_show_by_prefix(txlplan, family):
    assert txlplan("records", "show", family[0].id[:19], "--json").json["id"] == family[0].id
    text = txlplan("records", "show", family[0].id).stdout
    for heading in ("Record", "Result", "Predicted before the run", "Hardware", "Environment"):
        assert heading in text
    assert "<b>" not in text


def test_show_nobody(txlplan, family):
    result = txlplan("records", "show", "nobody", "--json")
    assert result.exit_code == 2
    assert "no record 'nobody'" in result.json["error"]["message"]


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_export_and_import(txlplan, family, tmp_path, monkeypatch, name):
    assert txlplan("records", "export", tmp_path / name, "--json").json["records"] == 5
    before = open_store().list()
    monkeypatch.setenv("TXLPLAN_STORE", str(tmp_path / "other.db"))
    result = txlplan("records", "import", tmp_path / name, "--json")
    assert (result.exit_code, result.json["imported"]) == (0, 5)
    assert open_store().list() == before


def test_a_corrupt_line_stops_the_import_or_is_skipped(txlplan, family, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    txlplan("records", "export", path)
    path.write_text(path.read_text() + "{oops\n")
    monkeypatch.setenv("TXLPLAN_STORE", str(tmp_path / "other.db"))
    result = txlplan("records", "import", path)
    assert result.exit_code == 2
    assert f"{path}:6: not valid JSON" in result.stderr
    assert open_store().list() == []
    result = txlplan("records", "import", path, "--skip-corrupt")
    assert result.exit_code == 0
    assert f"skipped {path}:6" in result.stderr
    assert len(open_store().list()) == 5


def test_a_name_that_tells_no_format_is_refused(txlplan, family, tmp_path):
    assert txlplan("records", "export", tmp_path / "r.xlsx").exit_code == 2
    assert txlplan("records", "import", tmp_path / "missing.jsonl").exit_code == 2
    assert txlplan("records", "export", tmp_path / "r.xlsx", "--json").json["error"]["exit_code"] == 2
    (tmp_path / "file").write_text("")
    assert "cannot be written" in txlplan("records", "export", tmp_path / "file" / "r.csv").stderr


def test_export_writes_the_oldest_first(txlplan, family, tmp_path):
    txlplan("records", "export", tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as stream:
        created = [row["created_at"] for row in csv.DictReader(stream)]
    assert created == sorted(created)


def test_validate_scores_the_store(txlplan, family):
    result = txlplan("validate", "store", "--json")
    assert result.exit_code == 0
    assert result.json["overall"]["tokens_per_s"]["n"] == 4
    assert result.json["rows"][0]["tokens_per_s"].keys() >= {"predicted", "low", "high", "measured", "relative_error", "inside"}
    assert [item["id"] for item in result.json["unscored"]] == [family[-1].id]
    text = txlplan("validate").stdout
    assert "device local-cpu" in text
    assert "not scored" in text


def test_validate_misses_a_bar(txlplan, family):
    assert txlplan("validate", "store", "--max-mape", 50).exit_code == 0
    missed = txlplan("validate", "store", "--max-mape", 1)
    assert missed.exit_code == 5
    assert "above the bar of 1 %" in missed.stderr
    document = txlplan("validate", "store", "--max-mape", 1, "--json")
    assert (document.exit_code, document.json["error"]["exit_code"]) == (5, 5)


def test_validate_without_anything_to_score(txlplan):
    assert txlplan("validate").exit_code == 0
    assert txlplan("validate", "--max-mape", 10).exit_code == 5
    assert txlplan("validate", "--max-mape", 0).exit_code == 2
    assert txlplan("validate", "rows.csv").exit_code == 2
