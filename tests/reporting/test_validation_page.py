"""The page of a validation: what it says, and that a real browser draws it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from browser_pages import ARTIFACTS, watched
from record_factory import make_estimate, make_failed, make_record

from txlplan.reporting import write_validation
from txlplan.reporting._validation import page
from txlplan.validation import Row, rank, score, summarise, validate


def rows(*pairs: tuple[float, float]) -> list[Row]:
    """Rows of throughputs (predicted, measured), on devices of their own."""
    found = []
    for number, (predicted, measured) in enumerate(pairs):
        row = score(make_record(estimate=make_estimate(predicted, 500.0), tokens_per_s=measured, peak_memory_bytes=1000))
        assert isinstance(row, Row)
        found.append(replace(row, id=f"row-{number}", device=f"device-{number}"))
    return found


def test_it_says_how_far_off_and_shows_the_worst_first():
    found = page(summarise(rows((1100.0, 1000.0), (700.0, 1000.0))), title="two rows")
    assert "off by 20.0 % on average over 2 rows, as predicted" in found.sentence
    worst = dict(found.sections)["Furthest off"]
    assert [cells[0] for cells in worst.rows] == ["row-0", "row-1", "row-1", "row-0"], "memory is off by half in both"
    assert worst.rows[2][-1] == "−30.0 %"
    groups = dict(found.sections)["Throughput: errors by group"].rows
    assert ("device", "device-1", "1", "30.0 %", "30.0 %", "30.0 %", "−30.0 %", "0.0 %") in groups


def test_left_out_groups_show_throughput_alone():
    found = page(summarise(rows((1100.0, 1000.0))), title="x", left_out="device")
    assert [chart.id for chart in found.charts] == ["parity-tokens-per-s"]
    assert "each device predicted by a fit to all others" in found.sentence


def test_rows_that_cannot_be_scored_are_listed():
    found = page(validate([make_failed(), make_record()]), title="store")
    assert dict(found.sections)["Not scored"].rows[0][1].startswith("failed: ")


def test_nothing_measured_is_said(tmp_path):
    empty = page(summarise([]), title="store")
    assert empty.sentence.startswith("Nothing to judge")
    assert (empty.charts, empty.sections) == ((), ())
    assert write_validation(summarise([]), tmp_path / "empty.html", title="store").exists()


def test_ranking_is_told_where_there_is_one():
    found = rows((1100.0, 1000.0), (3000.0, 2000.0))
    assert any("100.0 % are in order" in detail for detail in page(
        summarise(found), title="x", ranking=rank(found, {})
    ).details)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    scored = summarise(rows((1100.0, 1000.0), (700.0, 1000.0), (5000.0, 5100.0)))
    return write_validation(scored, tmp_path_factory.mktemp("page") / "validation.html", title="<b>rows</b>")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_a_browser_draws_it(browser, written, width, scheme):
    with watched(browser) as open_:
        shown = open_(written, width, scheme)
        assert shown.locator(".chart svg.main-svg").count() >= 2
        assert shown.locator(".chart .trace .points path").count() >= 6
        assert shown.locator("b", has_text="rows").count() == 0, "a title is text, not markup"
        assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        ARTIFACTS.mkdir(exist_ok=True)
        shown.screenshot(path=ARTIFACTS / f"validation-{scheme}.png", full_page=True)
