"""The HTML report in a real browser: drawn, quiet, offline, themed, narrow. Skipped where there is no Chromium."""

from __future__ import annotations

import pytest
from browser_pages import ARTIFACTS, background, seen, wait_until_drawn, watched
from record_factory import make_family, make_record

from txlplan.reporting import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(make_family(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def open_page(browser, report):
    with seen(browser, report) as open_:
        yield open_


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_in_both_themes(open_page, scheme):
    page = open_page(scheme=scheme)
    assert page.locator(".chart svg.main-svg").count() >= 6
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"report-{scheme}.png", full_page=True)


def test_the_theme_button_goes_round(open_page):
    page = open_page()
    button = page.get_by_role("button", name="Colour theme")
    light = background(page)
    button.click()
    assert (button.inner_text(), background(page)) == ("Theme: light", light)
    button.click()
    assert button.inner_text() == "Theme: dark"
    assert background(page) != light
    ink = page.evaluate("getComputedStyle(document.querySelector('.chart .xtick text')).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")
    page.reload()
    wait_until_drawn(page)
    assert button.inner_text() == "Theme: dark"
    button.click()
    assert (button.inner_text(), background(page)) == ("Theme: auto", light)


def test_a_phone_needs_no_sideways_scrolling(open_page):
    page = open_page(width=375)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.screenshot(path=ARTIFACTS / "report-phone.png", full_page=True)


def test_everything_is_labelled(open_page):
    page = open_page()
    assert page.locator("table").count() == page.locator("table > caption").count() == 8
    assert page.locator(".chart:not([aria-label])").count() == 0
    assert page.locator("h1").count() == 1
    assert page.title() == "demo-bytes on AMD EPYC 9R14 · txlplan report"


def test_it_prints_on_a4(open_page, tmp_path):
    page = open_page(scheme="dark")
    path = ARTIFACTS / "report.pdf"
    page.pdf(path=path, prefer_css_page_size=True)
    assert path.read_bytes().startswith(b"%PDF")
    assert page.locator("details[open]").count() == 0


def test_a_long_name_and_few_figures_fit_a_phone(browser, tmp_path):
    bare = make_record(steps=0, estimate=None, message="x" * 300, outcome="failed", losses=(), text="y" * 300)
    with watched(browser) as open_:
        page = open_(write_report([bare], tmp_path / "bare.html", title="z" * 200), width=375)
        assert page.evaluate("document.documentElement.scrollWidth") == 375
