"""Every command in the README and the guides is run, and every command of the program is helped and documented."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from txlplan.model import models

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPT = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
WORDS = (
    "the",
    "state",
    "of",
    "union",
    "was",
    "and",
    "is",
    "a",
    "report",
    "on",
    "our",
    "nation",
    "as",
    "it",
    "were",
    "then",
    "now",
)


QUICKER = (
    (re.compile(r"(txlplan hardware probe)\b"), r"\1 --seconds 8"),
    (re.compile(r"--repeats 2\b"), "--repeats 1"),
    (re.compile(r"--tokens (?:100|50)k\b"), "--tokens 25k"),
)
"""How much is measured or trained is a number like another to a command: less of it is tested as well."""


def scripts(page: Path) -> list[str]:
    return [match[1] for match in SCRIPT.finditer(page.read_text(encoding="utf-8"))]


def quicker(script: str) -> str:
    for pattern, instead in QUICKER:
        script = pattern.sub(instead, script)
    return script


def write_books(directory: Path) -> None:
    """A few small books: sentences of common words, in paragraphs."""
    directory.mkdir()
    source = random.Random(1)
    for number in range(6):
        paragraphs = [" ".join(source.choice(WORDS) for _ in range(60)) + "." for _ in range(60)]
        (directory / f"book-{number}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if scripts(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    write_books(tmp_path / "books")
    script = "set -euo pipefail\n" + quicker("\n".join(scripts(page)))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


COMMANDS = [
    "bench",
    "calibrate",
    "compare",
    "data inspect",
    "data prepare",
    "demo",
    "doctor",
    "estimate",
    "hardware add",
    "hardware detect",
    "hardware list",
    "hardware probe",
    "hardware show",
    "model export",
    "model import",
    "model list",
    "model show",
    "plan",
    "prices import",
    "prices show",
    "records export",
    "records import",
    "records list",
    "records show",
    "report",
    "run",
    "runner copy",
    "runner list",
    "runner show",
    "validate",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(txlplan: Any, command: str) -> None:
    result = txlplan(*command.split(), "--help")
    assert result.exit_code == 0
    help_text = " ".join(result.stdout.split())
    assert f"Example: txlplan {command}" in help_text
    example = next(line for line in result.stdout.splitlines() if "Example:" in line)
    options = re.findall(r"--[a-z-]+", example)
    assert set(options) <= set(re.findall(r"--[a-z-]+", help_text.replace(example.strip(), "")))
    for name in re.findall(r"--model ([^ ]+)", example):
        assert name in models.paths()


def test_no_command_is_left_out(txlplan: Any) -> None:
    """The list above is all that `--help` names; a new command must be added to it, and so to the docs."""
    groups = _names(txlplan("--help").stdout)
    found = []
    for name in groups:
        inner = _names(txlplan(name, "--help").stdout)
        found += [f"{name} {part}" for part in inner] or [name]
    assert sorted(found) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_a_page(command: str) -> None:
    assert any(re.search(rf"txlplan {command}\b", page.read_text(encoding="utf-8")) for page in PAGES)


def _names(help_text: str) -> list[str]:
    """Commands in the `Commands` box of a help page."""
    _, _, box = help_text.partition("Commands")
    return re.findall(r"^[│|] ([a-z][a-z-]*)\s", box, re.MULTILINE)
