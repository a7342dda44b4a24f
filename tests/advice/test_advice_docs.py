"""The reference names every key that a comparison reads or writes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from txlplan import advice
from txlplan.advice import Scenario, WhatIf
from txlplan.config._schema import toml_key
from txlplan.hardware import BookEntry, Economics, economics

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("cls", [Scenario, WhatIf, Economics, BookEntry])
def test_every_key_of_a_file_is_documented(cls: type) -> None:
    keys = [toml_key(field.name) for field in dataclasses.fields(cls) if field.name != "id"]
    assert [key for key in keys if key not in PAGE] == []


def test_every_key_of_the_json_is_documented() -> None:
    document = advice.compare(model="demo-bytes", tokens=1e6, on=["p3.2xlarge"]).to_dict()
    own = set(document) - {"workload", "rank_by", "pay", "today"}
    assert [key for key in (*own, *document["verdict"]) if f"`{key}`" not in PAGE] == []


def test_every_assumption_has_its_source() -> None:
    known = economics.get("default")
    figures = [toml_key(field.name) for field in dataclasses.fields(Economics)]
    assert set(figures) - set(known.sources) == {"id", "name", "date", "sources"}
