"""Prices shown, imported and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from txlplan.hardware import priced, systems

HEADER = "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region,AvailabilityZone\n"
GOOD = (
    "p4d.24xlarge,96,1152,A100,8,20.50,6.25,us-east-1,a\n"
    "p4d.24xlarge,96,1152,A100,8,19.75,,eu-north-1,b\n"
    "Standard_ND96asr_v4,96,900,A100,8,26.0,11.0,eastus,\n"
    "gpu_8x_v100,92,448,V100,8,6.00,,us-west-1,\n"
    "TPU-VM,,,tpu-v3-8,1,7.50,2.25,us-central1,\n"
    "m5.large,2,8,,,0.096,,us-east-1,a\n"
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "vms.csv"
    path.write_text(HEADER + GOOD)
    return path


def test_an_imported_price_is_the_one_used(txlplan: Any, catalog: Path, home: Path) -> None:
    result = txlplan("prices", "import", catalog, "--json")
    assert result.exit_code == 0, result.stderr
    found = {(entry["system"], entry["kind"]): entry for entry in result.json["prices"]}
    assert found["p4d.24xlarge", "on-demand"]["rent_usd_per_h"] == 19.75, "the cheapest region"
    assert found["p4d.24xlarge", "on-demand"]["region"] == "eu-north-1"
    assert set(found) == {
        ("p4d.24xlarge", "on-demand"), ("p4d.24xlarge", "spot"), ("nd96asr-v4", "on-demand"), ("nd96asr-v4", "spot"),
        ("lambda-gpu-8x-v100", "on-demand"), ("v3-8", "on-demand"), ("v3-8", "spot"),
    }  # fmt: skip
    assert (result.json["rows"], result.json["unmatched"], result.json["bad"]) == (6, 1, [])
    assert Path(result.json["path"]).is_relative_to(home)
    system = priced(systems.get("p4d.24xlarge"))
    assert system.price("on-demand").rent_usd_per_h == 19.75
    assert system.price("spot").rent_usd_per_h == 6.25
    model = ("--model", "demo-bytes", "--tokens", "1e8", "--on", "p4d.24xlarge", "--pay", "spot", "--json")
    account = txlplan("compare", *model).json["candidates"][0]["account"]
    assert (account["way"], account["price"]["rent_usd_per_h"]) == ("spot", 6.25)


def test_one_region_and_an_older_date(txlplan: Any, catalog: Path) -> None:
    result = txlplan("prices", "import", catalog, "--region", "us-east-1", "--date", "2020-01-01", "--json")
    assert [entry["rent_usd_per_h"] for entry in result.json["prices"]] == [20.5, 6.25]
    assert priced(systems.get("p4d.24xlarge")).price("on-demand").date > "2020-01-01", "a newer price stays in use"


def test_bad_rows_are_named_by_line_and_nothing_is_written(txlplan: Any, catalog: Path, home: Path) -> None:
    bad = "p3.2xlarge,8,61,V100,1,free,,us-east-1,\np3.2xlarge,8,61,V100,1,0,,us-east-1,\np3.2xlarge,8,61,V100,1,nan,,x,\n"
    bad += "p3.2xlarge,8,61,V100,4,3.06,,us-east-1,\nm5.large,2,8,,,-1,,us-east-1,\n"
    catalog.write_text(HEADER + GOOD + bad)
    result = txlplan("prices", "import", catalog)
    assert result.exit_code == 2
    for line, text in (
        (8, "Price 'free' is no number"),
        (9, "Price '0'"),
        (10, "Price 'nan'"),
        (11, "AcceleratorCount 4"),
        (12, "'-1'"),
    ):
        assert f"{catalog}:{line}: " in result.stderr
        assert text in result.stderr
    assert not list(home.rglob("*.toml"))
    skipped = txlplan("prices", "import", catalog, "--skip-bad", "--json")
    assert skipped.exit_code == 0
    assert len(skipped.json["bad"]) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'InstanceType'"),
        (HEADER, "no rows below the header"),
        (HEADER + "m5.large,2,8,,,0.096,,us-east-1,a\n", "none of 1 rows has the price of a known system"),
        (HEADER.replace("SpotPrice", "Spot") + GOOD, "no column 'SpotPrice'"),
    ],
)
def test_a_file_that_is_no_catalog(txlplan: Any, tmp_path: Path, home: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(text)
    result = txlplan("prices", "import", path)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(home.rglob("*.toml"))
    assert txlplan("prices", "import", tmp_path / "missing.csv").exit_code == 2
    assert txlplan("prices", "import", path, "--date", "today").exit_code == 2


def test_show_marks_what_is_old(txlplan: Any) -> None:
    (row,) = txlplan("prices", "show", "dgx-1", "--json").json
    assert (row["kind"], row["purchase_usd"], row["stale"]) == ("purchase", 149_000, True)
    assert row["age_days"] > 3000
    text = txlplan("prices", "show").stdout
    assert "p4d.24xlarge" in text
    assert "days, stale" in text
    assert txlplan("prices", "show", "dgx-7").exit_code == 2
    assert "no price is known of generic-cpu" in txlplan("prices", "show", "generic-cpu").stdout
