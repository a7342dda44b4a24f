"""The HTML of a comparison in a real browser: drawn, sorted, filtered, themed, narrow, printed. Skipped without Chromium."""

from __future__ import annotations

import datetime

import pytest
from browser_pages import ARTIFACTS, background, seen

from txlplan import advice

ROWS = "[...document.querySelectorAll('#sortable tbody tr:not([hidden])')].map(row => row.cells[{column}].{what})"


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    found = advice.compare(
        model="nvidia-wt103-base",
        tokens=1.8e9,
        on=["dgx-1", "p3.16xlarge", "1..4xp4d.24xlarge", "dgx-h100"],
        what_if=[{"like": "a100-sxm4-40gb", "set": {"memory_bandwidth": "3 TB/s"}}],
        today=datetime.date(2026, 11, 24),
    )
    return found.to_html(tmp_path_factory.mktemp("answer") / "answer.html")


@pytest.fixture(scope="module")
def open_page(browser, answer):
    with seen(browser, answer) as open_:
        yield open_


def column(page, index, what="textContent"):
    return page.evaluate(ROWS.format(column=index, what=what))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_and_has_its_table(open_page, scheme):
    page = open_page(scheme=scheme)
    ids = page.evaluate("[...document.querySelectorAll('.chart')].map(chart => chart.id)")
    assert ids == ["pareto", "scaling", "break-even", "time", "memory-use"]
    assert page.locator(".chart:not([aria-label])").count() == 0
    assert page.locator(".chart-card table > caption").count() == len(ids)
    assert page.locator("#pareto .errorbars path").count() > 0, "the ranges are drawn"
    headline = page.locator("h1").inner_text()
    assert headline.startswith("If it existed, rent p4d.24xlarge with memory_bandwidth = 3\xa0TB/s (the smallest size that")
    assert ": it trains nvidia-wt103-base on 1.8" in headline
    assert "; of what exists, the first is dgx-h100, in " in headline
    assert page.locator("table").count() == page.locator("table > caption").count()
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"comparison-{scheme}.png", full_page=True)


def test_headings_sort_by_keyboard_and_unknown_stays_last(open_page):
    page = open_page()
    heading = page.get_by_role("button", name="cost", exact=True)
    heading.focus()
    page.keyboard.press("Enter")
    cost = page.locator("#sortable thead th").nth(4)
    assert cost.get_attribute("aria-sort") == "ascending"
    values = column(page, 4, "dataset.sort")
    assert values[-1] == ""
    known = [float(value) for value in values[:-1]]
    assert known == sorted(known)
    page.keyboard.press("Enter")
    assert cost.get_attribute("aria-sort") == "descending"
    values = column(page, 4, "dataset.sort")
    assert values[-1] == ""
    assert [float(value) for value in values[:-1]] == known[::-1]
    page.get_by_role("button", name="candidate", exact=True).press("Space")
    names = column(page, 0)
    assert names == sorted(names)
    assert page.locator("[aria-sort]").count() == 1


def test_filters_narrow_the_table_and_say_so(open_page):
    page = open_page()
    assert page.locator("#shown").inner_text() == "6 of 6"
    page.get_by_role("searchbox").fill("dgx bought")
    assert column(page, 0) == ["dgx-1"]
    assert page.locator("#shown").inner_text() == "1 of 6"
    page.get_by_role("searchbox").fill("")
    page.get_by_role("checkbox").check()
    front = column(page, 8)
    assert front == ["yes"] * len(front)
    assert 0 < len(front) < 6
    page.get_by_role("checkbox").uncheck()


def test_labels_of_points_do_not_lie_upon_each_other_and_nothing_is_cut(open_page):
    page = open_page()
    boxes = page.evaluate(
        "[...document.querySelectorAll('#pareto .textpoint text')].map(text => text.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 4, "all that have a price"
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
    wide = page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert wide == 0, "on a wide screen every column is seen at once"


def test_numbers_of_points_touch_no_marker_on_a_phone(open_page):
    boxes = "[...document.querySelectorAll('#pareto {}')].map(one => one.getBoundingClientRect().toJSON())"
    page = open_page(width=375)
    numbers, markers = page.evaluate(boxes.format(".textpoint text")), page.evaluate(boxes.format(".points path.point"))
    assert len(numbers) == len(markers) == 4
    for one in (*numbers, *markers):
        for other in numbers:
            apart = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert one is other or apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]


def test_the_theme_button_changes_page_and_charts(open_page):
    page = open_page()
    light = background(page)
    button = page.get_by_role("button", name="Colour theme")
    button.click()
    button.click()
    assert button.inner_text() == "Theme: dark"
    assert background(page) != light
    ink = page.evaluate("getComputedStyle(document.querySelector('#pareto .xtick text')).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    button.click()


def test_a_phone_needs_no_sideways_scrolling(open_page):
    page = open_page(width=375)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.screenshot(path=ARTIFACTS / "comparison-phone.png", full_page=True)


SPLIT = """[...document.querySelectorAll('#sortable :is(th, td)')].filter(cell => {
    cell.style.overflowWrap = 'normal';
    return cell.scrollWidth > cell.clientWidth + 1;
}).map(cell => cell.textContent)"""
"""Cells with a word that is wider than they are."""
PAPER_PX = 688
"""Of A4 between margins of 14 mm."""


def test_it_prints_on_a4(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": PAPER_PX, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER_PX
    assert page.evaluate(SPLIT) == []
    path = ARTIFACTS / "comparison.pdf"
    page.pdf(path=path, prefer_css_page_size=True)
    assert path.read_bytes().startswith(b"%PDF")
