"""The HTML report in a real browser: drawn, quiet, offline, themed, narrow. Skipped where there is no Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from record_factory import make_family, make_record

from txlplan.reporting import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
ARTIFACTS = Path(__file__).parents[2] / "artifacts"
DRAWN = "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.trace :is(.points, .lines) path'))"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the report is not opened in a browser")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(make_family(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def open_page(browser, report):
    """Open the report; at the end, nothing may have been said on the console or asked of any network."""
    said, asked, pages = [], [], []

    def open_(path=report, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        wait_until_drawn(page)
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def wait_until_drawn(page):
    """Asked from outside: the page's own policy forbids the evaluation that playwright's wait_for_function needs."""
    for _ in range(300):
        if page.evaluate(DRAWN):
            return
        page.wait_for_timeout(50)
    pytest.fail("the charts were not drawn in 15 s")


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


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


def test_a_long_name_and_few_figures_fit_a_phone(open_page, tmp_path):
    bare = make_record(steps=0, estimate=None, message="x" * 300, outcome="failed", losses=(), text="y" * 300)
    page = open_page(write_report([bare], tmp_path / "bare.html", title="z" * 200), width=375)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
