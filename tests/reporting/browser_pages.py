"""Pages in a real browser: opened, waited for, and watched for what they say and ask for."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
ARTIFACTS = Path(__file__).parents[2] / "artifacts"
DRAWN = "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.trace :is(.points, .lines) path'))"

Open = Callable[..., Any]
"""(path, width, scheme) to the page there, drawn."""


@contextlib.contextmanager
def watched(browser: Any) -> Iterator[Open]:
    """Open pages; at the end, nothing may have been said on the console or asked of any network."""
    said, asked, pages = [], [], []

    def open_(path: Path, width: int = 1280, scheme: str = "light") -> Any:
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


@contextlib.contextmanager
def seen(browser: Any, path: Path) -> Iterator[Open]:
    """Open one page once for each way of looking: (width, scheme) to it."""
    with watched(browser) as open_:
        yield functools.cache(functools.partial(open_, path))


def wait_until_drawn(page: Any) -> None:
    """Asked from outside: the page's own policy forbids the evaluation that playwright's wait_for_function needs."""
    for _ in range(300):
        if page.evaluate(DRAWN):
            return
        page.wait_for_timeout(50)
    pytest.fail("the charts were not drawn in 15 s")


def background(page: Any) -> str:
    """The colour behind the page."""
    return page.evaluate("getComputedStyle(document.body).backgroundColor")
