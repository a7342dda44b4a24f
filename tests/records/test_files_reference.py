"""docs/reference/files.md specifies every key of the files that people write, and is what the docstrings say."""

from __future__ import annotations

from files_reference import PATH, markdown


def test_the_page_is_current():
    assert PATH.read_text(encoding="utf-8") == markdown(), "run `python tests/records/files_reference.py`"
