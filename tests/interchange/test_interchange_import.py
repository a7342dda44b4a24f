"""State dicts of the original code and of NVIDIA's: names, order of clusters, shared parameters, and what is wrong with one."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import BASE, SYMBOLS, built, state_of
from torch import Tensor

from txlplan.engine import checkpoint
from txlplan.errors import CheckpointError, DataError, InputError, TxlplanError
from txlplan.interchange import import_model
from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL

ADAPTIVE = replace(BASE, cutoffs=(10, 20, 30), div_val=2, tie_projections=(False, True, True, True))
ONE_WIDTH = replace(BASE, cutoffs=(10, 20), d_embed=8, tie_projections=(False, True, False))
MATRICES = ("dec_attn.qkv_net", "dec_attn.o_net", "dec_attn.r_net")
BIASED = ("dec_attn.layer_norm", "pos_ff.CoreNet.0", "pos_ff.CoreNet.3", "pos_ff.layer_norm")
LAYER = [f"{name}.weight" for name in MATRICES + BIASED] + [f"{name}.bias" for name in BIASED]
COMMON = {"r_w_bias", "r_r_bias", "pos_emb.inv_freq", "crit.cluster_weight", "crit.cluster_bias"} | {
    f"layers.{layer}.{name}" for layer in range(2) for name in LAYER
}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    (path.parent / "vocab.txt").write_text("\n".join(SYMBOLS) + "\n")
    return path


def weights_of(directory: Path) -> TransformerXL:
    return checkpoint.load_model(checkpoint.locate(directory))


def test_names_of_the_original_code() -> None:
    clusters = range(4)
    expected = COMMON | {
        *(f"word_emb.emb_layers.{i}.weight" for i in clusters),
        *(f"word_emb.emb_projs.{i}" for i in clusters),
        *(f"crit.out_layers.{i}.{part}" for i in clusters for part in ("weight", "bias")),
        *(f"crit.out_projs.{i}" for i in clusters),
    }
    # the original repeats what it shares; biases it has once, for the whole model
    found = set(state_of(built(ADAPTIVE), "original"))
    assert {name for name in found if "dec_attn.r_" not in name or "r_net" in name} == expected


def test_names_of_nvidias() -> None:
    """It keeps no second name for what is shared."""
    expected = COMMON | {
        "word_emb.emb_layers.0.weight",
        "word_emb.emb_projs.0",
        "crit.out_layers_biases.0",
        "crit.out_projs.0",
        "crit.out_projs.2",
    }
    found = set(state_of(built(ONE_WIDTH), "nvidia"))
    shared = {"crit.out_projs.1", "crit.out_layers_weights.0"}
    assert {name for name in found if "dec_attn.r_" not in name or "r_net" in name} - shared == expected


@pytest.mark.parametrize("config", [BASE, ADAPTIVE, ONE_WIDTH, replace(ADAPTIVE, tie_weights=False, untie_r=True, norm="pre")])
@pytest.mark.parametrize("layout", ["original", "nvidia"])
def test_a_state_dict_comes_in_bit_for_bit(tmp_path: Path, config: ModelConfig, layout: Any) -> None:
    module = built(config)
    state = {f"module.{name}": tensor for name, tensor in state_of(module, layout).items()}
    imported = import_model(saved(tmp_path / "model.pt", state), tmp_path / "out", model=config)
    assert imported.layout == layout
    back = weights_of(tmp_path / "out")
    assert back.config == config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in module.state_dict().items())


def test_clusters_are_read_from_the_end_as_the_original_reads_them(tmp_path: Path) -> None:
    """Its softmax, by its formulas: cluster i has the head's logit at index -i."""
    state = state_of(built(ADAPTIVE), "original")
    import_model(saved(tmp_path / "model.pt", state), tmp_path / "out", model=ADAPTIVE)
    hidden = torch.randn(5, ADAPTIVE.d_model)

    def logits(cluster: int) -> Tensor:
        weight, bias = state[f"crit.out_layers.{cluster}.weight"], state[f"crit.out_layers.{cluster}.bias"]
        if cluster == 0:
            weight, bias = torch.cat([weight, state["crit.cluster_weight"]]), torch.cat([bias, state["crit.cluster_bias"]])
        return hidden @ state[f"crit.out_projs.{cluster}"] @ weight.T + bias

    head = logits(0).log_softmax(1)
    tails = [head[:, -i, None] + logits(i).log_softmax(1) for i in (1, 2, 3)]
    expected = torch.cat([head[:, :10], *tails], dim=1)
    torch.testing.assert_close(weights_of(tmp_path / "out").log_probabilities(hidden), expected, rtol=1e-4, atol=1e-4)


def test_nvidias_checkpoint_brings_its_configuration(tmp_path: Path) -> None:
    config = replace(ONE_WIDTH, id="model", dropout=0.1, clamp_len=5, same_length=True)
    settings = {
        "n_token": 40, "n_layer": 2, "n_head": 2, "d_model": 16, "d_head": 6, "d_inner": 24, "dropout": 0.1, "dropatt": 0.0,
        "dtype": None, "tie_weight": True, "d_embed": 8, "div_val": 1, "tie_projs": [False, True, False], "pre_lnorm": False,
        "tgt_len": 6, "ext_len": 0, "mem_len": 7, "cutoffs": [10, 20], "same_length": True, "attn_type": 0, "clamp_len": 5,
        "sample_softmax": -1,
    }  # fmt: skip
    content = {"model_config": settings, "model_state": state_of(built(config), "nvidia"), "epoch": 3}
    imported = import_model(saved(tmp_path / "model.pt", content), tmp_path / "out")
    assert imported.model == config


def test_half_precision_becomes_fp32(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in state_of(built(BASE), "original").items()}
    import_model(saved(tmp_path / "model.pt", state), tmp_path / "out", model=BASE)
    weight = weights_of(tmp_path / "out").layers[0].attention.qkv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["layers.0.dec_attn.qkv_net.weight"].float())


def wrong(path: Path, out: Path, **options: Any) -> TxlplanError:
    """The error of an import, which leaves nothing."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(InputError) as raised:
        import_model(path, out, **options)
    assert sorted(path.parent.iterdir()) == before
    assert raised.value.exit_code == 2
    return raised.value


def test_every_wrong_tensor_is_named(tmp_path: Path) -> None:
    state = state_of(built(BASE), "original")
    del state["layers.1.pos_ff.CoreNet.3.bias"], state["r_w_bias"]
    state["layers.2.dec_attn.r_net.weight"] = torch.zeros(12, 16)
    state["layers.0.dec_attn.o_net.weight"] = torch.zeros(12, 16)
    message = wrong(saved(tmp_path / "model.pt", state), tmp_path / "out", model=BASE).message
    assert len(message.splitlines()) == 4
    for text in (
        "no tensor 'layers.1.pos_ff.CoreNet.3.bias'",
        "no tensor 'r_w_bias'",
        "'layers.2.dec_attn.r_net.weight' has no place",
        "'layers.0.dec_attn.o_net.weight' has shape [12, 16], the model needs [16, 12]",
    ):
        assert text in message


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("r_w_bias", torch.full((2, 6), float("nan")), "not finite"),
        ("r_w_bias", torch.zeros(2, 6, dtype=torch.int64), "holds torch.int64"),
        ("crit.out_layers.0.weight", torch.zeros(40, 16), "differs from 'word_emb.emb_layers.0.weight'"),
    ],
)
def test_unusable_values_are_named(tmp_path: Path, name: str, value: Tensor, text: str) -> None:
    state = state_of(built(BASE), "original") | {name: value}
    message = wrong(saved(tmp_path / "model.pt", state), tmp_path / "out", model=BASE).message
    assert f"tensor {name!r}" in message
    assert text in message


def test_python_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    """A whole pickled module, as the original's `model.pt` is, and a checkpoint with a namespace, as NVIDIA's are."""
    for content in (built(BASE), {"model_state": {}, "args": argparse.Namespace()}):
        error = wrong(saved(tmp_path / "model.pt", content), tmp_path / "out", model=BASE)
        assert "would run code" in error.message
        assert "state_dict()" in str(error.hint)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": torch.zeros(1)}, "no state dict of a Transformer-XL"),
        ({"word_emb.emb_layers.0.weight": 3}, "not every entry is a tensor"),
        ({0: torch.zeros(1)}, "not every name is text"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, text: str) -> None:
    assert text in wrong(saved(tmp_path / "model.pt", content), tmp_path / "out", model=BASE).message


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", state_of(built(BASE), "original"))
    path.write_bytes(path.read_bytes()[:4000])
    assert "model.pt" in wrong(path, tmp_path / "out", model=BASE).message
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(b"\xff" * 100)
    assert "not a safetensors file" in wrong(damaged, tmp_path / "out", model=BASE).message
    assert "no such file" in wrong(tmp_path / "none.pt", tmp_path / "out", model=BASE).message


def test_a_bare_state_dict_needs_a_model_and_a_vocabulary_that_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", state_of(built(BASE), "original"))
    assert "--model MODEL" in str(wrong(path, tmp_path / "out").hint)
    (tmp_path / "vocab.txt").write_text("\n".join([*SYMBOLS, "more"]) + "\n")
    error = wrong(path, tmp_path / "out", model=BASE)
    assert isinstance(error, DataError)
    assert "vocab_size = 40, the data a vocabulary of 41 words" in error.message
    (tmp_path / "vocab.txt").unlink()
    assert "no vocabulary beside the model" in wrong(path, tmp_path / "out", model=BASE).message


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", state_of(built(BASE), "original"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert "is there already" in wrong(path, tmp_path / "out", model=BASE).message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'"),
        ({"attn_type": 1}, "attn_type = 1"),
        ({"d_head": None}, "has no 'd_head'"),
        ({"d_model": 15}, "d_model = 15 must be even"),
        ({"cutoffs": 10}, "cutoffs = 10: not a list"),
        ({"cutoffs": ["10"]}, r"cutoffs = \['10'\]: not a list of whole numbers"),
        ({"n_layer": 2.5}, "n_layer"),
        ({"clamp_len": "far"}, "clamp_len"),
        ({"tie_projs": 3}, "tie_projections = 3 must be a list"),
    ],
)
def test_configurations_that_are_no_transformer_xl_are_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    raw = {
        "model_type": "transfo-xl", "vocab_size": 40, "cutoffs": [], "n_layer": 2, "d_model": 16, "d_embed": 16, "n_head": 2,
        "d_head": 6, "d_inner": 24, "div_val": 1, "mem_len": 7, "clamp_len": -1, "same_length": False, "untie_r": False,
    }  # fmt: skip
    directory = tmp_path / "theirs"
    directory.mkdir()
    saved(directory / "pytorch_model.bin", state_of(built(BASE), "hugging-face"))
    (directory / "config.json").write_text(json.dumps(raw))
    import_model(directory, tmp_path / "right")
    (directory / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(CheckpointError, match=text):
        import_model(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()
