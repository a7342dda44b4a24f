"""`txlplan runner list|show|copy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_list_names_the_shipped_runners(txlplan: Any) -> None:
    listed = txlplan("runner", "list")
    assert listed.exit_code == 0
    assert "torchrun" in listed.stdout
    assert [row["id"] for row in txlplan("runner", "list", "--json").json] == ["local", "torchrun"]


def test_show_prints_the_file_as_it_is(txlplan: Any) -> None:
    shown = txlplan("runner", "show", "local")
    path = Path(txlplan("runner", "show", "local", "--json").json["file"])
    assert shown.stdout == path.read_text()


def test_copy_is_the_users_own(txlplan: Any) -> None:
    copied = txlplan("runner", "copy", "torchrun", "--as", "mine", "--json")
    path = Path(copied.json["file"])
    assert path.parent.name == "mine"
    path.write_text(path.read_text().replace("torchrun", "torchrun, pinned"))
    assert "pinned" in txlplan("runner", "show", "mine").stdout
    again = txlplan("runner", "copy", "torchrun", "--as", "mine")
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_unknown_runner(txlplan: Any) -> None:
    refused = txlplan("runner", "show", "locl", "--json")
    assert refused.exit_code == 2
    assert "local" in refused.json["error"]["hint"]
