"""`txlplan validate` on a file of published runs."""

from __future__ import annotations

import pytest

from txlplan import resources

FILE = resources.shipped("profiles") / "measurements" / "published.csv"


@pytest.fixture
def few(tmp_path):
    """The rows of three devices, and one of a device that no profile describes."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if any(f",{device}," in line for device in ("rtx-a4000", "rtx-a4500", "quadro-rtx-6000"))]
    path = tmp_path / "few.csv"
    path.write_text("\n".join([lines[0], *kept]) + "\n", encoding="utf-8")
    return path


def test_rows_hold_what_was_predicted_and_measured(txlplan, few):
    document = txlplan("validate", few, "--json").json
    assert len(document["rows"]) == document["overall"]["tokens_per_s"]["n"] == 24
    row = document["rows"][0]
    for quantity in ("tokens_per_s", "peak_memory_bytes"):
        assert {"predicted", "low", "high", "measured"} <= set(row[quantity])
    assert row["fits"] == {"predicted": True, "measured": True}
    assert (row["stack"], row["extrapolated"]) == ("lambda-torch1.9-apex", False)
    assert document["leave_out"] is None
    text = txlplan("validate", few).stdout
    assert "device rtx-a4500" in text
    assert "fits in memory: 24 of 24 right" in text


def test_left_out_devices_are_further_off(txlplan, few):
    left_out = txlplan("validate", few, "--leave-out", "device", "--json").json
    shipped = txlplan("validate", few, "--json").json
    assert left_out["leave_out"] == "device"
    assert left_out["mean_of_groups"] > shipped["mean_of_groups"]
    assert all(row["extrapolated"] for row in left_out["rows"])


def test_a_page_can_be_written(txlplan, few, tmp_path):
    result = txlplan("validate", few, "--html", str(tmp_path / "page.html"), "--json")
    assert result.exit_code == 0
    assert f"wrote {tmp_path / 'page.html'}" in result.stderr
    assert "off by" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_bars(txlplan, few):
    assert txlplan("validate", few, "--max-mape", 20).exit_code == 0
    missed = txlplan("validate", few, "--max-mape", 0.1)
    assert missed.exit_code == 5
    assert "above the bar of 0.1 %" in missed.stderr
    few.write_text(few.read_text(encoding="utf-8").replace("rtx-a4500", "rtx-a4501"), encoding="utf-8")
    unknown = txlplan("validate", few, "--max-mape", 20)
    assert unknown.exit_code == 5
    assert "8 rows could not be predicted" in unknown.stderr
    assert "unknown device 'rtx-a4501'" in unknown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("thing",), "'thing' cannot be scored"),
        (("none.csv",), "none.csv is not a file"),
        (("store", "--leave-out", "device"), "--leave-out refits"),
        (("published.csv", "--leave-out", "devices"), "did you mean 'device'"),
    ],
)
def test_what_cannot_be_asked(txlplan, arguments, message):
    result = txlplan("validate", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_matrix_products_are_scored_by_their_own_columns(txlplan):
    document = txlplan("validate", "deepbench_gemm.csv", "--json").json
    seen = {(score["what"], score["device"], score["precision"]): score["median"] for score in document["products"]}
    assert seen["its own points", "t4", "fp16"] < 1e-9
    assert seen["all but its (M, K) family", "v100-sxm2-16gb", "fp32"] < 0.1
    assert txlplan("validate", "deepbench_gemm.csv", "--max-mape", 10).exit_code == 0
    missed = txlplan("validate", "deepbench_gemm.csv", "--max-mape", 1, "--json")
    assert (missed.exit_code, missed.json["error"]["exit_code"]) == (5, 5)
    assert txlplan("validate", "deepbench_gemm.csv", "--leave-out", "device").exit_code == 2
