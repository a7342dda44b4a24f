"""`txlplan model`."""

from __future__ import annotations

from pathlib import Path

from txlplan.config import to_plain
from txlplan.model import models


def test_list_names_every_model(txlplan) -> None:
    result = txlplan("model", "list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in models.paths())
    assert "285,167,482" in result.stdout
    assert "next: txlplan model show" in result.stderr


def test_list_as_json(txlplan) -> None:
    rows = txlplan("model", "list", "--json").json
    assert [row["id"] for row in rows] == list(models.paths())


def test_show_prints_a_card(txlplan) -> None:
    result = txlplan("model", "show", "nvidia-wt103-base")
    assert result.exit_code == 0
    for text in ("191,950,298", "732 MiB", "forward FLOPs per token", "memory per sequence", "6.00 MiB", "arXiv:1901.02860"):
        assert text in result.stdout


def test_show_as_json_agrees_with_the_configuration(txlplan) -> None:
    card = txlplan("model", "show", "demo-bytes", "--json").json
    config = models.get("demo-bytes")
    assert card["model"] == to_plain(config)
    assert sum(card["parameters_by_group"].values()) == card["parameters"]
    assert card["parameter_bytes"]["fp32"] == 4 * card["parameters"]
    assert card["memory_bytes_per_sequence"]["bf16"] == config.n_layer * config.mem_len * config.d_model * 2


def test_show_reads_a_file(txlplan, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "demo-bytes"\nn_layer = 2\n')
    assert txlplan("model", "show", file, "--json").json["model"]["n_layer"] == 2


def test_an_unknown_model_offers_the_nearest(txlplan) -> None:
    result = txlplan("model", "show", "nvidia-wt103-bse")
    assert result.exit_code == 2
    assert "unknown model 'nvidia-wt103-bse'" in result.stderr
    assert "nvidia-wt103-base" in result.stderr
    assert result.stdout == ""


def test_an_unknown_key_in_a_model_file_offers_the_nearest(txlplan, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "demo-bytes"\nn_layers = 2\n')
    result = txlplan("model", "show", file)
    assert result.exit_code == 2
    assert "unknown key 'n_layers'" in result.stderr
    assert "did you mean 'n_layer'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_errors_are_one_json_document(txlplan) -> None:
    error = txlplan("model", "show", "nothing-like-it", "--json").json["error"]
    assert error["exit_code"] == 2
