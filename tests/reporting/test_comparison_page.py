"""What the page of a comparison holds, without a browser."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from record_factory import make_record

from txlplan import advice
from txlplan.errors import ConfigError, InputError
from txlplan.planner import Comparison
from txlplan.reporting import write_comparison


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return advice.compare(
        model="demo-bytes", tokens=1e8, on=["p3.2xlarge", "1..2xp3.16xlarge", "dgx-1"], today=datetime.date(2026, 11, 24)
    ).comparison


def markdown(comparison: Comparison, path: Path, **more: object) -> str:
    return write_comparison(comparison, path / "answer.md", format="md", **more).read_text()  # type: ignore[arg-type]


def test_measured_runs_stand_beside_their_predictions(comparison: Comparison, tmp_path: Path) -> None:
    assert "## Throughput" not in markdown(comparison, tmp_path)
    text = markdown(comparison, tmp_path, records=[make_record(1)])
    assert "## Throughput" in text
    assert "| predicted | 80 % range | measured |" in text


def test_assumptions_and_prices_have_sources_and_dates(comparison: Comparison, tmp_path: Path) -> None:
    text = markdown(comparison, tmp_path)
    assert "$0.1275 per kWh | average price to commercial customers" in text
    assert "2017-05-10 (3,485 days old, stale) | NVIDIA list price" in text
    assert "noted on 2026-11-24" in text


def test_what_is_out_is_named_with_its_reason(tmp_path: Path) -> None:
    """8 sequences, 2 heads, 4 layers and 8 shares of the positions occupy 512 devices and no more."""
    found = advice.compare(
        model="demo-bytes", tokens=1e8, on=["p3.2xlarge", "1..128xp3.16xlarge"], today=datetime.date(2026, 11, 24)
    )
    text = markdown(found.comparison, tmp_path)
    assert "| 128x p3.16xlarge | no plan divides a global batch of 8" in text


def test_a_template_of_the_users_own_comes_first(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compare.md.j2").write_text("take {{ page.verdict.best }}\n")
    monkeypatch.setenv("TXLPLAN_REPORTS", str(tmp_path))
    assert markdown(comparison, tmp_path) == f"take {comparison.verdict.best}\n"
    (tmp_path / "compare.md.j2").write_text("{{ page.nothing }}")
    with pytest.raises(ConfigError, match=r"compare\.md\.j2"):
        markdown(comparison, tmp_path)


def test_a_place_that_cannot_be_written_is_named(comparison: Comparison) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_comparison(comparison, Path("/proc/nowhere/answer.md"), format="md")
