"""Reports as files: complete, escaped, and honest about what is unknown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import pytest
from record_factory import make_device, make_estimate, make_failed, make_family, make_model, make_record

from txlplan.errors import ConfigError, InputError, RecordError
from txlplan.reporting import build, percent, verdict, write_report
from txlplan.workload import Workload

NASTY = '<script>alert("x")</script>'


def text_of(records, tmp_path, format="html"):  # noqa: A002
    return write_report(records, tmp_path / f"report.{format}", format=format).read_text(encoding="utf-8")


def test_the_html_is_small_and_loads_nothing(tmp_path):
    path = write_report(make_family(), tmp_path / "report.html")
    assert path.stat().st_size < 6_000_000
    page = path.read_text(encoding="utf-8").split("plotly.js v")[0]
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<h1>demo-bytes trained at" in page


@pytest.mark.parametrize("format", ["html", "md", "csv", "json"])
def test_every_format_names_every_record(tmp_path, format):  # noqa: A002
    family = make_family()
    text = text_of(family, tmp_path, format)
    assert all(record.id in text.replace("\\", "") for record in family)


def test_markup_in_names_and_messages_is_shown_not_run(tmp_path):
    record = make_failed(
        message=NASTY,
        device=make_device(name=NASTY),
        text=f"{NASTY}</pre>",
        workload=Workload(model=make_model(id="m", name=NASTY)),
    )
    page = text_of([record], tmp_path).split("plotly.js v")[0]
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<script>alert" not in text_of([record], tmp_path, "md").split("## Generated text")[0]


def test_of_a_run_without_a_step_it_is_said_that_nothing_can_be_compared():
    """Nor is memory, which records of earlier versions hold."""
    for memory_bytes in (None, 600 << 20):
        record = make_record(
            steps=0, outcome="stopped", tokens_per_s=None, peak_memory_bytes=memory_bytes, bits_per_character=None
        )
        said = verdict(record)
        assert said.details[-1] == "No step was measured, so nothing can be compared."
        assert "predicted" not in said.sentence
        assert said.tone == "neutral"
    assert "nothing can be compared" not in " ".join(verdict(dataclasses.replace(record, outcome="running")).details)


def test_what_a_record_lacks_is_unknown(tmp_path):
    bare = make_record(
        steps=0, estimate=None, tokens_per_s=None, peak_memory_bytes=None, perplexity=None, bits_per_character=None, text=None,
        losses=(), finished_at=None,
    )  # fmt: skip
    for format in ("html", "md"):  # noqa: A001
        text = text_of([bare], tmp_path, format).split("plotly.js v")[0]
        assert "unknown" in text
        assert not re.search(r"\b(nan|inf|None)\b", text)
    assert verdict(bare).tone == "neutral"


def test_the_newest_run_is_in_the_foreground():
    family = make_family()
    report = build([*family[1:], family[0]], title="Mine")
    assert report.subject == family[0]
    assert report.title == "Mine"
    assert [chart.id for chart in report.charts] == ["throughput", "memory", "speed", "loss", "time-terms", "memory-terms"]
    assert report.comparison.rows[0][:3] == ("throughput", "5,200 tokens/s", "4,333 to 6,118 tokens/s")


def test_a_benchmark_without_a_run_is_reported():
    repeats = [make_record(seed, kind="bench", parent="b") for seed in range(3)]
    report = build(repeats)
    assert report.subject == repeats[-1]
    assert sorted(row[0] for row in report.trials.rows) == ["Repeat 1", "Repeat 2", "Repeat 3"]


@pytest.mark.parametrize(
    ("changes", "tone", "says"),
    [
        (
            {"tokens_per_s": 5000.0},
            "good",
            "throughput was predicted 4.0 % too high and peak memory 4.4 % too low, both inside",
        ),
        ({"tokens_per_s": 5200.0}, "good", "throughput was predicted to within 0.1 %"),
        ({"tokens_per_s": 2600.0}, "fair", "throughput was predicted 100.0 % too high (outside its 80 % range)"),
        ({"peak_memory_bytes": None}, "good", "inside its 80 % range."),
        ({"tokens_per_s": None}, "neutral", ": peak memory was predicted 4.4 % too low, inside its 80 % range."),
        ({"outcome": "stopped"}, "good", "until it was stopped after 240 steps"),
        ({"outcome": "running"}, "neutral", "demo-bytes is still running on AMD EPYC 9R14."),
        ({"outcome": "oom"}, "bad", "ran out of memory on AMD EPYC 9R14, though predicted to fit (612 MiB of 6.65 GiB)."),
        ({"outcome": "oom", "estimate": make_estimate(fits=False)}, "bad", "as predicted"),
        ({"outcome": "failed", "message": ""}, "bad", "no reason was recorded"),
        ({"n_devices": 8}, "good", "on 8 × AMD EPYC 9R14"),
        ({"estimate": None}, "neutral", "trained at"),
        ({"estimate": make_estimate(extrapolated=True)}, "good", ""),
    ],
)
def test_the_verdict_says_what_happened(changes, tone, says):
    found = verdict(make_record(**changes))
    assert says in found.sentence
    assert found.tone == tone
    assert found.sentence.count("  ") == 0


def test_csv_and_json_hold_the_errors(tmp_path):
    record = make_record(tokens_per_s=5000.0, message="=1+1")
    (row,) = csv.DictReader(io.StringIO(text_of([record], tmp_path, "csv")))
    assert float(row["tokens_per_s_relative_error"]) == pytest.approx(0.04)
    assert row["message"] == "'=1+1"
    document = json.loads(text_of([record], tmp_path, "json"))
    assert document["comparison"][0]["tokens_per_s_in_range"] is True
    assert document["records"][0]["id"] == record.id


def test_tables_stay_tables_in_markdown(tmp_path):
    text = text_of([make_failed(message="a | b\nc")], tmp_path, "md")
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1, table


def test_long_runs_give_short_pages(tmp_path):
    page = write_report([make_record(steps=20_000)], tmp_path / "long.html")
    assert page.stat().st_size < 5_500_000


def test_no_records_make_no_report(tmp_path):
    with pytest.raises(RecordError, match="at least one record"):
        write_report([], tmp_path / "x.html")


def test_a_wrong_format_or_place_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown report format"):
        write_report([make_record()], tmp_path / "x.pdf", format="pdf")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([make_record()], tmp_path / "file" / "x.html")


def test_the_users_template_comes_first_and_its_mistakes_are_named(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv("TXLPLAN_REPORTS", str(mine))
    template = mine / "report.md.j2"
    template.write_text("only {{ report.title }}")
    assert text_of([make_record()], tmp_path, "md") == "only demo-bytes on AMD EPYC 9R14"
    template.write_text("fine\n{% if %}")
    with pytest.raises(ConfigError, match=r"report\.md\.j2:2"):
        text_of([make_record()], tmp_path, "md")
    template.write_text("{{ report.nothing }}")
    with pytest.raises(ConfigError, match="nothing"):
        text_of([make_record()], tmp_path, "md")


def test_percent():
    assert [percent(0.0412), percent(None), percent(-0.05, signed=True), percent(0.05, signed=True)] == [
        "4.1 %", "unknown", "−5.0 %", "+5.0 %",
    ]  # fmt: skip


def test_nothing_known_makes_no_empty_chart():
    bare = make_record(steps=0, estimate=None, tokens_per_s=None, peak_memory_bytes=None, losses=())
    assert build([bare]).charts == ()


def test_scoring_and_generating_follow_the_training_run():
    run, *trials = make_family()
    blank = {"text": None, "bits_per_character": None, "perplexity": None}
    run = dataclasses.replace(run, **blank)
    scored = make_record(60, workload=Workload(model=make_model(), task="score"), text=None, bits_per_character=2.111)
    sample = make_record(61, workload=Workload(model=make_model(), task="generate"), **blank | {"text": "Fellow citizens"})
    report = build([run, *trials, scored, sample])
    assert report.subject == run
    assert report.verdict.details == ("Held-out score: 2.111 bits per character.",)
    assert [figure.value for figure in report.headline if figure.name == "Bits per character"] == ["2.111"]
    assert report.text == "Fellow citizens"
    assert {row[0] for row in report.trials.rows} == {"Run", "Trial 1", "Trial 2", "Trial 3", "Score", "Generate"}
