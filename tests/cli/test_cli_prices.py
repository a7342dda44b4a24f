"""Prices shown, imported and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from txlplan import resources
from txlplan.advice._prices import _is_device
from txlplan.hardware import devices, price_books, priced, systems

HEADER = "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region,AvailabilityZone\n"
GOOD = (
    "p4d.24xlarge,96,1152,A100,8,20.50,6.25,us-east-1,a\n"
    "p4d.24xlarge,96,1152,A100,8,19.75,,eu-north-1,b\n"
    "Standard_ND96asr_v4,96,900,A100,8,26.0,11.0,eastus,\n"
    "gpu_8x_v100,92,448,V100,8,6.00,,us-west-1,\n"
    "TPU-VM,,,tpu-v3-8,1,7.50,2.25,us-central1,\n"
    "TPU-VM,,,tpu-v5litepod-8,1,9.60,4.80,us-central1,\n"
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
        ("v5litepod-8", "on-demand"), ("v5litepod-8", "spot"),
    }  # fmt: skip
    assert (result.json["rows"], result.json["bad"]) == (7, [])
    assert result.json["unmatched"] == [f"{catalog}:8: m5.large has no accelerator"]
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


def test_catalogs_of_one_name_are_kept_in_one_book(txlplan: Any, catalog: Path, tmp_path: Path) -> None:
    """Every cloud's catalog is called vms.csv: what another one brought stays, what the same one brought is replaced."""
    assert txlplan("prices", "import", catalog, "--date", "2026-01-02", "--json").json["replaced"] == []
    other = tmp_path / "other" / "vms.csv"
    other.parent.mkdir()
    other.write_text(HEADER + "p3.2xlarge,8,61,V100,1,3.06,0.95,us-east-1,\np4d.24xlarge,96,1152,A100,8,30.0,,us-west-2,\n")
    result = txlplan("prices", "import", other, "--date", "2026-01-03", "--json").json
    assert [(one["system"], one["kind"], one["rent_usd_per_h"]) for one in result["replaced"]] == [
        ("p4d.24xlarge", "on-demand", 19.75)
    ]
    (book,) = price_books.all()
    kept = {(one.system, one.kind): one.rent_usd_per_h for one in book.prices}
    assert len(kept) == len(book.prices) == 9 + 2
    assert kept["p4d.24xlarge", "on-demand"] == 30.0
    assert kept["p4d.24xlarge", "spot"] == 6.25
    assert kept["nd96asr-v4", "on-demand"] == 26.0
    assert kept["p3.2xlarge", "spot"] == 0.95
    shown = txlplan("prices", "import", other, "--date", "2026-01-04").stdout
    assert "replaced: p3.2xlarge on-demand, $3.06 of 2026-01-03 (vms.csv, imported on " in shown
    older = txlplan("prices", "import", other, "--date", "2025-01-01", "--json").json
    assert older["replaced"] == [], "what is of a later day stays"
    assert {one.date for one in price_books.get("vms").prices if one.system == "p3.2xlarge"} == {"2026-01-04", "2025-01-01"}


def test_a_book_of_a_system_that_is_none_is_said(txlplan: Any, home: Path) -> None:
    book = resources.user("profiles") / "prices" / "own.toml"
    book.parent.mkdir(parents=True)
    entry = '[[prices]]\nsystem = "{}"\nkind = "on-demand"\nrent = "7 USD/h"\ndate = "2026-11-01"\nsource = "own"\n'
    book.write_text(entry.format("dgx-a100-40bg") + entry.format("local-gpu") + entry.format("t4"))
    said = f"{book}: no system is called 'dgx-a100-40bg', so its price is not used; nearest: dgx-a100-40gb"
    assert said in txlplan("prices", "show").stderr
    (note,) = [
        text
        for text in txlplan("compare", "--model", "demo-bytes", "--tokens", "1e8", "--on", "dgx-1", "--json").json["warnings"]
        if "is not used" in text
    ]
    assert note.startswith(said)


def test_prices_of_this_machine_and_of_a_device(txlplan: Any, home: Path) -> None:
    for name in ("local", "t4"):
        result = txlplan("prices", "show", name)
        assert result.exit_code == 0, result.stderr
        assert f"no price is known of {name}" in result.stdout


def test_bad_rows_are_named_by_line_and_nothing_is_written(txlplan: Any, catalog: Path, home: Path) -> None:
    bad = "p3.2xlarge,8,61,V100,1,free,,us-east-1,\np3.2xlarge,8,61,V100,1,0,,us-east-1,\np3.2xlarge,8,61,V100,1,nan,,x,\n"
    bad += "p3.2xlarge,8,61,V100,4,3.06,,us-east-1,\nm5.large,2,8,,,-1,,us-east-1,\n"
    bad += "p3.2xlarge,8,61,H100,1,3.06,,us-east-1,\np4d.24xlarge,96,1152,A100-80GB,8,20.50,6.25,us-east-1,a\n"
    catalog.write_text(HEADER + GOOD + bad)
    result = txlplan("prices", "import", catalog)
    assert result.exit_code == 2
    for line, text in (
        (9, "Price 'free' is no number"),
        (10, "Price '0'"),
        (11, "Price 'nan'"),
        (12, "AcceleratorCount 4"),
        (13, "'-1'"),
        (14, "AcceleratorName 'H100' of p3.2xlarge, but p3.2xlarge has v100-sxm2-16gb"),
        (15, "AcceleratorName 'A100-80GB' of p4d.24xlarge"),
    ):
        assert f"{catalog}:{line}: " in result.stderr
        assert text in result.stderr
    assert not list(home.rglob("*.toml"))
    skipped = txlplan("prices", "import", catalog, "--skip-bad", "--json")
    assert skipped.exit_code == 0
    assert len(skipped.json["bad"]) == 7


def test_rows_that_match_nothing_are_listed_with_the_reason(txlplan: Any, catalog: Path) -> None:
    catalog.write_text(HEADER + GOOD + "g4dn.12xlarge,48,192,T4,4,3.9,,us-east-1,\np2.xlarge,4,61,K80,1,0.9,,us-east-1,\n")
    shown = txlplan("prices", "import", catalog).stdout
    assert f"not matched: {catalog}:9: no system profile is called 'g4dn.12xlarge' (T4 × 4)" in shown
    assert f"not matched: {catalog}:10: no device profile is of the accelerator 'K80' (p2.xlarge)" in shown
    assert "9 rows, 3 of unknown instance types, 0 bad" in shown


@pytest.mark.parametrize(
    ("name", "device", "same"),
    [
        ("A100", "a100-sxm4-40gb", True),
        ("A100-80GB", "a100-sxm4-80gb", True),
        ("A100-80GB", "a100-sxm4-40gb", False),
        ("A10", "a100-sxm4-40gb", False),
        ("A10G", "a10", False),
        ("V100-32GB", "v100-sxm2-32gb", True),
        ("H100-SXM", "h100-sxm5-80gb", True),
        ("RTXA6000", "rtx-a6000", True),
        ("A6000", "rtx-a6000", True),
        ("RTX6000", "quadro-rtx-6000", True),
        ("tpu-v3-8", "tpu-v3", True),
        ("tpu-v4-8", "tpu-v3", False),
    ],
)
def test_names_of_accelerators(name: str, device: str, same: bool) -> None:
    assert _is_device(name, devices.get(device)) is same


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
    assert "still to come" in txlplan("prices", "import", path, "--date", "2062-01-01").stderr


def test_show_marks_what_is_old(txlplan: Any) -> None:
    (row,) = txlplan("prices", "show", "dgx-1", "--json").json
    assert (row["kind"], row["purchase_usd"], row["stale"]) == ("purchase", 149_000, True)
    assert row["age_days"] > 3000
    text = txlplan("prices", "show").stdout
    assert "p4d.24xlarge" in text
    assert "days old, stale" in text
    assert txlplan("prices", "show", "dgx-7").exit_code == 2
    assert "no price is known of generic-cpu" in txlplan("prices", "show", "generic-cpu").stdout
