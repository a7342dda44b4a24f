"""What goes out, read back by who it is for. (Hugging Face's layout is tested beside what comes in from it.)"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_models import BASE, built

from txlplan.data import prepare
from txlplan.engine import checkpoint
from txlplan.errors import CheckpointError, InputError, TxlplanError
from txlplan.interchange import export_model, import_model
from txlplan.interchange._graph import INPUTS, OUTPUTS, Scorer, _checked
from txlplan.model import ModelConfig, models
from txlplan.nn import TransformerXL

ADAPTIVE = replace(
    BASE, n_layer=1, cutoffs=(10, 20), div_val=2, tie_projections=(False, True, True), norm="pre", clamp_len=5, mem_len=7
)


def saved(directory: Path, config: ModelConfig) -> TransformerXL:
    module = built(config)
    checkpoint.save_weights(directory, config, module.state_dict())
    return module


def fed(scorer, module: TransformerXL) -> list[torch.Tensor]:
    """Log-probabilities over segments of 4, 1 and 9 tokens of three sequences, memory handed on from each to the next."""
    tokens = torch.randint(0, module.config.vocab_size, (3, 14), generator=torch.Generator().manual_seed(2))
    memory, valid, found = module.initial_memory(3), torch.tensor(0), []
    for segment in tokens.split([4, 1, 9], dim=1):
        with torch.no_grad():
            log, memory, valid = scorer(segment, memory, valid)
        found.append(log)
    return found


def test_safetensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    config = replace(ADAPTIVE, dropout=0.1, same_length=True, notes="mine")
    module = saved(tmp_path / "run", config)
    exported = export_model(tmp_path / "run", tmp_path / "out", "safetensors")
    assert exported.files == ("model.safetensors", "model.toml")
    assert not exported.has_vocabulary
    assert models.get(str(tmp_path / "out" / "model.toml")) == config
    (tmp_path / "v.txt").write_text("<eos>\n<unk>\n" + "".join(f"{n}\n" for n in range(38)))
    import_model(tmp_path / "out", tmp_path / "back", vocabulary=str(tmp_path / "v.txt"))
    back = checkpoint.load_model(checkpoint.locate(tmp_path / "back"))
    assert back.config == config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in module.state_dict().items())


def test_torch_export_gives_the_same_for_any_batch_and_length(tmp_path: Path) -> None:
    module = saved(tmp_path / "run", ADAPTIVE)
    exported = export_model(tmp_path / "run", tmp_path / "out", "torch-export")
    assert exported.largest_difference < 1e-5
    graph = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for found, expected in zip(fed(graph, module), fed(Scorer(module), module), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_onnx_gives_the_same_in_onnxruntime_for_any_batch_and_length(tmp_path: Path, capfd) -> None:
    import onnxruntime

    module = saved(tmp_path / "run", ADAPTIVE)
    exported = export_model(tmp_path / "run", tmp_path / "out", "onnx")
    assert exported.largest_difference < 1e-5
    assert capfd.readouterr().out == ""
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])

    def graph(*arguments):
        given = dict(zip(INPUTS, (argument.numpy() for argument in arguments), strict=True))
        return [torch.from_numpy(array) for array in session.run(OUTPUTS, given)]

    for found, expected in zip(fed(graph, module), fed(Scorer(module), module), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_graph_remembers_as_the_model_does() -> None:
    module = built(ADAPTIVE)
    tokens, memory, valid = torch.zeros(2, 9, dtype=torch.int64), torch.randn(1, 2, 7, 16), torch.tensor(3)
    _, next_memory, next_valid = Scorer(module)(tokens, memory, valid)
    assert torch.equal(next_memory, module(tokens, memory, valid)[1])
    assert next_valid == 7


def test_a_graph_that_differs_is_not_accepted() -> None:
    module, other = built(ADAPTIVE), built(ADAPTIVE)
    other.softmax.biases[0].data[3] += 1e-4
    assert _checked(module, Scorer(module)) == 0
    with pytest.raises(TxlplanError, match="differs from the model"):
        _checked(module, Scorer(other))
    other.softmax.biases[0].data[3] = float("nan")
    with pytest.raises(TxlplanError, match="differs from the model by nan"):
        _checked(module, Scorer(other))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs the package {package}$") as raised:
        export_model(tmp_path / "run", tmp_path / "out", "onnx")
    assert raised.value.hint == "pip install 'txlplan[onnx]'"


def test_the_vocabulary_of_the_run_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three\n" * 50)
    from txlplan.data import Settings

    prepare([tmp_path / "text.txt"], tmp_path / "data", settings=Settings(vocabulary="words"), processes=1)
    config = replace(BASE, vocab_size=5)
    module = built(config)
    (tmp_path / "weights").mkdir()
    checkpoint.save_weights(tmp_path / "first", config, module.state_dict())
    export_model(tmp_path / "first", tmp_path / "bare", "safetensors")
    import_model(tmp_path / "bare", tmp_path / "run", vocabulary=str(tmp_path / "data"))
    exported = export_model(tmp_path / "run", tmp_path / "out", "hf")
    assert exported.files == ("config.json", "model.safetensors", "vocab.txt", "vocabulary/vocabulary.json")
    assert sorted((tmp_path / "out" / "vocab.txt").read_text().split()) == ["<eos>", "<unk>", "one", "three", "two"]
    assert import_model(tmp_path / "out", tmp_path / "again").vocabulary_size == 5


def test_what_hugging_face_cannot_be_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "run", replace(BASE, activation="gelu"))
    with pytest.raises(CheckpointError, match="activation = 'gelu'"):
        export_model(tmp_path / "run", tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    saved(tmp_path / "run", BASE)
    (file,) = (tmp_path / "run").rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        export_model(tmp_path / "run", tmp_path / "out", "safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
