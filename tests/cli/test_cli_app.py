"""Every command ends with an exit code and a readable message; the light ones load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = ("torch", "pandas", "plotly", "pynvml")
PROBE = """
import json, sys
from txlplan.cli import run
print(json.dumps({"code": run(sys.argv[1:]), "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def measured(*arguments: str) -> dict[str, Any]:
    """Run a command in a process of its own; its exit code and imported modules."""
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return report


@pytest.mark.parametrize("arguments", [("--help",), ("hardware", "list")])
def test_a_light_command_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    report = measured(*arguments)
    assert report["code"] == 0
    assert not set(HEAVY) & set(report["modules"])


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = f"import sys, txlplan; sys.exit(bool(set({HEAVY!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_unknown_command_is_usage(txlplan: Any) -> None:
    result = txlplan("harware")
    assert result.exit_code == 2
    assert "harware" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [("nonsense", "--json"), ("hardware", "show", "v101", "--json"), ("hardware", "list", "--jsn", "--json")]
)
def test_json_is_one_document_even_when_the_command_fails(txlplan: Any, arguments: tuple[str, ...]) -> None:
    result = txlplan(*arguments)
    assert result.exit_code == 2
    assert result.json["error"]["exit_code"] == 2
    assert result.json["error"]["message"]


def test_version(txlplan: Any) -> None:
    result = txlplan("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("txlplan ")


def test_a_closed_pipe_is_no_error() -> None:
    script = f"{sys.executable} -m txlplan hardware list | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("hardware",)])
def test_without_a_command_the_help_is_all_that_is_said(txlplan: Any, arguments: tuple[str, ...]) -> None:
    result = txlplan(*arguments)
    assert result.exit_code == 2
    assert "Usage: txlplan" in result.stdout
    assert "error" not in result.stderr


@pytest.mark.parametrize("variable", ["TXLPLAN_PROFILES", "TXLPLAN_RUNNERS", "TXLPLAN_REPORTS"])
def test_a_variable_that_names_no_directory_is_said(txlplan: Any, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "/no/such/place")
    result = txlplan("model", "list", "--json")
    assert result.exit_code == 0
    assert f"note: {variable} names /no/such/place, which is no directory" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("records", "import", "missing.jsonl"), "`txlplan records export` wrote"),
        (("prices", "import", "missing.csv"), "InstanceType"),
        (("hardware", "add", "*"), "GeForce RTX 5090"),
        (
            ("plan", "--model", "demo-bytes", "--system", "generic-cpu", "--data", "no-data"),
            "data prepare INPUT... --output no-data",
        ),
    ],
)
def test_what_is_not_there_says_what_to_give(txlplan: Any, arguments: tuple[str, ...], hint: str) -> None:
    result = txlplan(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr.split("hint:")[1]
