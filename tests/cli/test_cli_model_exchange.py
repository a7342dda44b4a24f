"""`txlplan model import` and `export`, and what can be done with what they make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL
from txlplan.records import open_store

MODEL = """
n_layer = 1
d_model = 16
n_head = 2
d_head = 8
d_inner = 16
vocab_size = 256
tgt_len = 8
mem_len = 8
"""


@pytest.fixture
def exported(txlplan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A byte model as `model export` writes one, by hand. All that it writes are printable characters."""
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "theirs"
    directory.mkdir()
    (directory / "model.toml").write_text(MODEL)
    torch.manual_seed(1)
    config = ModelConfig(id="m", n_layer=1, d_model=16, n_head=2, d_head=8, d_inner=16, vocab_size=256, tgt_len=8, mem_len=8)
    weights = {name: value.detach() for name, value in TransformerXL(config).named_parameters()}
    bias = weights["softmax.biases.0"]
    bias[:32] = bias[127:] = -100.0
    save_file(weights, directory / "model.safetensors")
    return directory


def test_an_imported_model_generates_takes_text_and_goes_out(txlplan, exported: Path, tmp_path: Path) -> None:
    result = txlplan("model", "import", exported, "--output", "mine", "--vocabulary", "bytes")
    assert result.exit_code == 0, result.stderr
    assert "256 symbols" in result.stdout
    assert "next: txlplan run --task generate --checkpoint mine" in result.stderr

    options = ("--top-p", "0.9", "--repetition-penalty", "1.2", "--stop", "no such text", "--stream", "--threads", "1")
    generated = txlplan("run", "--task", "generate", "--checkpoint", "mine", "--prompt", "It", "--tokens", "40", *options)
    assert generated.exit_code == 0, generated.stderr
    (record,) = open_store().list()
    assert generated.stdout == f"{record.text}\n"
    assert record.workload.prompt_len == 2

    refused = txlplan("run", "--task", "score", "--checkpoint", "mine")
    assert refused.exit_code == 2
    assert "vocabulary without text" in refused.stderr
    assert "--vocabulary-of" in refused.stderr

    (tmp_path / "text.txt").write_text("some text of ours, line after line\n" * 200)
    prepared = txlplan("data", "prepare", "text.txt", "--output", "data", "--vocabulary-of", "mine", "--processes", "1")
    assert prepared.exit_code == 0, prepared.stderr
    planned = txlplan("run", "--task", "score", "--checkpoint", "mine", "--data", "data", "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    again = txlplan("data", "prepare", "text.txt", "--output", "data", "--vocabulary-of", "mine")
    assert "nothing done" in again.stderr

    out = txlplan("model", "export", "mine", "--format", "safetensors", "--output", "out", "--json")
    assert out.exit_code == 0, out.stderr
    assert out.json["has_vocabulary"]
    assert "vocabulary/vocabulary.json" in out.json["files"]
    back = txlplan("model", "import", "out", "--output", "back", "--json")
    assert back.json["layout"] == "txlplan"
    assert back.json["vocabulary"] == {"kind": "bytes", "size": 256}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--prompt", ""), "encodes to no token"),
        (("--prompt", "It was a long time ago"), "22 tokens is longer than what the model 'model' remembers (8)"),
        (("--prompt", b"caf\xe9".decode("utf-8", "surrogateescape")), "not valid UTF-8"),
        (("--prompt", "a", "--prompt", "b", "--global-batch", "3"), "no multiple of the 2 prompts"),
        (("--prompt", "a", "--prompt", "b", "--stream"), "--stream prints one text"),
        (("--prompt", "a", "--stream", "--json"), "--stream has no effect beside --json"),
        (("--top-p", "2"), "top_p = 2.0"),
        (("--stop", ""), "empty string"),
    ],
)
def test_prompts_and_options_without_sense_start_nothing(txlplan, exported: Path, tmp_path: Path, options, text: str) -> None:
    txlplan("model", "import", exported, "--output", "mine", "--vocabulary", "bytes")
    result = txlplan("run", "--task", "generate", "--checkpoint", "mine", "--directory", "out", "--threads", "1", *options)
    assert result.exit_code == 2
    assert text in result.stderr + result.stdout
    assert not (tmp_path / "out").exists()
    assert open_store().list() == []


def test_several_prompts_are_rows_of_one_batch(txlplan, exported: Path) -> None:
    txlplan("model", "import", exported, "--output", "mine", "--vocabulary", "bytes")
    prompts = ("--prompt", "a", "--prompt", "of", "--threads", "1", "--dry-run", "--json")
    document = txlplan("run", "--task", "generate", "--checkpoint", "mine", *prompts).json["plan_file"]
    assert (document["sampling"]["prompt"], document["sampling"]["more_prompts"]) == ("a", ["of"])
    assert document["plan"]["micro_batch"] == 2
    assert document["workload"]["prompt_len"] == 2


def test_an_export_without_its_data_says_so(txlplan, exported: Path, tmp_path: Path) -> None:
    txlplan("model", "import", exported, "--output", "mine", "--vocabulary", "bytes")
    (tmp_path / "mine" / "data").rename(tmp_path / "elsewhere")
    result = txlplan("model", "export", "mine", "--format", "safetensors", "--output", "out")
    assert result.exit_code == 0
    assert "note: the data set of the run is not there" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("import", "nothing.pt", "--output", "x"), "nothing.pt: no such file"),
        (("import", "theirs", "--output", "x"), "no vocabulary beside the model"),
        (("import", "theirs", "--output", "theirs", "--vocabulary", "bytes"), "theirs is there already"),
        (("import", "theirs", "--output", "x", "--vocabulary", "none.txt"), "none.txt: no such file"),
        (("import", "theirs", "--output", "x", "--vocabulary", "bytes", "--model", "other.toml"), "no tensor 'layers.1."),
        (("export", "nothing", "--format", "hf", "--output", "x"), "nothing: no such directory"),
        (("export", "theirs", "--format", "safetensor", "--output", "x"), "did you mean 'safetensors'?"),
    ],
)
def test_bad_input_ends_with_2_and_leaves_nothing(txlplan, exported: Path, tmp_path: Path, arguments, text: str) -> None:
    (tmp_path / "other.toml").write_text(MODEL.replace("n_layer = 1", "n_layer = 2"))
    result = txlplan("model", *arguments)
    assert text in result.stderr
    assert result.exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"theirs", "home", "other.toml"}


def test_a_config_that_is_no_json_is_one_error_document(txlplan, exported: Path) -> None:
    (exported / "model.toml").unlink()
    (exported / "config.json").write_text("{")
    error = txlplan("model", "import", exported, "--output", "x", "--json").json["error"]
    assert error["exit_code"] == 2
    assert "config.json: not readable as JSON" in error["message"]
    assert json.dumps(error)
