"""docs/reference/records.md specifies every field, and is what the docstrings say."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from records_reference import PARTS, PATH, field_documentation, markdown

from txlplan.records import Record


def test_the_page_is_current():
    assert PATH.read_text(encoding="utf-8") == markdown(), "run `python tests/records/records_reference.py`"


def test_every_dataclass_inside_a_record_has_a_section():
    def inside(hint: Any) -> set[type]:
        if dataclasses.is_dataclass(hint):
            hints = typing.get_type_hints(hint).values()
            return {hint}.union(*(inside(item) for item in hints))
        return set().union(*(inside(item) for item in typing.get_args(hint)))

    assert inside(Record) == set(PARTS)


def test_every_field_of_a_record_says_what_it_is():
    assert set(field_documentation(Record)) == {field.name for field in dataclasses.fields(Record)}
