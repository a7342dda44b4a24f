"""`export_model`: a checkpoint becomes a directory that other programs read, whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import Tensor

from txlplan.config import to_toml
from txlplan.data import WordVocabulary, vocabulary_place
from txlplan.data._build import load_vocabulary
from txlplan.engine import checkpoint
from txlplan.errors import TxlplanError
from txlplan.files import write_text
from txlplan.interchange import _graph
from txlplan.interchange._foreign_config import to_hugging_face
from txlplan.interchange._import import PLAN_NAME
from txlplan.interchange._layouts import foreign_state, repeated_names
from txlplan.interchange._output import new_directory
from txlplan.interchange._source import CONFIG, FOREIGN_CONFIG, TENSORS
from txlplan.interchange._vocabulary import OWN_DIRECTORY, TEXT_FILE
from txlplan.nn import TransformerXL
from txlplan.plan_file import read_plan_file

ExportFormat = Literal["safetensors", "hf", "onnx", "torch-export"]
FORMATS: tuple[ExportFormat, ...] = ("safetensors", "hf", "onnx", "torch-export")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What went out."""

    directory: Path
    format: ExportFormat
    files: tuple[str, ...]
    has_vocabulary: bool
    """False where the data set that the run was trained on is no longer there."""
    largest_difference: float | None
    """Between the graph's outputs, run, and the module's, in nats; None: no graph."""


def export_model(path: Path, output: Path, target: ExportFormat) -> Exported:
    """Write the checkpoint (or the newest of a run directory) as

    - `safetensors`: our names, `model.toml` beside them; `txlplan model import` reads it back;
    - `hf`: `config.json` and the names of `transfo-xl`, for `TransfoXLLMHeadModel.from_pretrained`;
    - `onnx` and `torch-export`: one graph (txlplan.interchange._graph), run once and compared with the module.

    The vocabulary goes with it. Raises CheckpointError, and InputError for a place that is taken or a package that is missing.
    """
    if target == "onnx":
        _graph.require_onnx()
    with new_directory(output) as partial:
        model = checkpoint.load_model(checkpoint.locate(path))
        difference = _WRITERS[target](model, partial)
        if target != "hf":
            write_text(partial / CONFIG, to_toml(model.config))
        vocabulary = _copy_vocabulary(path, partial)
        files = tuple(sorted(str(file.relative_to(partial)) for file in partial.rglob("*") if file.is_file()))
    return Exported(directory=output, format=target, files=files, has_vocabulary=vocabulary, largest_difference=difference)


def _weights(model: TransformerXL) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _write_safetensors(model: TransformerXL, directory: Path) -> None:
    save_file(_weights(model), directory / TENSORS)


def _write_hugging_face(model: TransformerXL, directory: Path) -> None:
    """Shared parameters are written under each of their names, but for the large ones, which its module shares by itself."""
    write_text(directory / FOREIGN_CONFIG, json.dumps(to_hugging_face(model.config), indent=2) + "\n")
    state = foreign_state(model.config, _weights(model), "hugging-face")
    large = repeated_names(model.config, "hugging-face").keys() & {name for name in state if name.startswith("crit.")}
    kept = {name: tensor.clone() for name, tensor in state.items() if name not in large}
    save_file(kept, directory / TENSORS, metadata={"format": "pt"})


def _write_onnx(model: TransformerXL, directory: Path) -> float:
    return _graph.write_onnx(model, directory / "model.onnx")


def _write_torch_export(model: TransformerXL, directory: Path) -> float:
    return _graph.write_torch_export(model, directory / "model.pt2")


_WRITERS: dict[ExportFormat, Callable[[TransformerXL, Path], float | None]] = {
    "safetensors": _write_safetensors,
    "hf": _write_hugging_face,
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
}


def _copy_vocabulary(path: Path, directory: Path) -> bool:
    """Copy the vocabulary of the run that the checkpoint is of; words also as the text that Hugging Face's tokenizer reads."""
    run = next((place for place in (path, *path.absolute().parents[:2]) if (place / PLAN_NAME).is_file()), None)
    if run is None:
        return False
    try:
        place = vocabulary_place(Path(read_plan_file(run / PLAN_NAME).data.directory))
    except TxlplanError:
        return False
    shutil.copytree(place, directory / OWN_DIRECTORY, ignore=shutil.ignore_patterns("step.json"))
    vocabulary = load_vocabulary(place)
    if isinstance(vocabulary, WordVocabulary):
        symbols = (vocabulary.symbol(number) for number in range(vocabulary.size))
        write_text(directory / TEXT_FILE, "".join(f"{symbol}\n" for symbol in symbols))
    return True
