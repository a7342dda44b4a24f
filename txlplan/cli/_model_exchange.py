"""`txlplan model import` and `export`: weights of other programs, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import one_of
from txlplan.units import format_count

if TYPE_CHECKING:
    from rich.console import Console

_FORMATS = ("safetensors", "hf", "onnx", "torch-export")

_Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A file of tensors (.pt, .bin, .safetensors) or a directory of a model.")
]
_Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run directory, or a checkpoint in it.")]
_OutputOption = Annotated[Path, typer.Option("--output", "-o", help="A directory that is made.")]
_Model = Annotated[str | None, typer.Option("--model", help="Model of a state dict that says none: an id, or a .toml file.")]
_Vocabulary = Annotated[
    str | None,
    typer.Option(
        "--vocabulary",
        help="bytes, a .txt of one symbol a line, a .json of symbols and numbers, or a data set; else what lies beside SOURCE.",
    ),
]
_Format = Annotated[str, typer.Option("--format", help="safetensors, hf (Hugging Face), onnx or torch-export.")]


def register(group: typer.Typer) -> None:
    """Add the commands to their group."""
    group.command("import")(_import)
    group.command("export")(_export)


def _import(
    source: _Source, output: _OutputOption, model: _Model = None, vocabulary: _Vocabulary = None, as_json: JsonOption = False
) -> None:
    """Bring in weights of the original code, of NVIDIA's, of Hugging Face's transfo-xl, or of `model export`.

    No pickle is read. The directory that is made is a checkpoint to score with, generate with or train on from.

    Example: txlplan model import weights.pt --output imported --model original-wt103-base --vocabulary vocab.txt
    """
    from txlplan.config import to_plain
    from txlplan.interchange import import_model
    from txlplan.model import models, parameter_count

    given = models.get(model) if model is not None else None
    result = import_model(source.expanduser(), output.expanduser(), model=given, vocabulary=vocabulary)
    document = {
        "directory": str(result.directory),
        "layout": result.layout or "txlplan",
        "parameters": parameter_count(result.model),
        "vocabulary": {"kind": result.vocabulary_kind, "size": result.vocabulary_size},
        "model": to_plain(result.model),
    }
    out = Output(as_json)
    out.document(document, lambda console: _print_imported(console, document))
    out.next_step(f"txlplan run --task generate --checkpoint {output} --prompt TEXT")


def _export(checkpoint: _Checkpoint, output: _OutputOption, target: _Format, as_json: JsonOption = False) -> None:
    """Write weights, configuration and vocabulary for other programs, or the model as one graph.

    A graph (onnx, torch-export) is run once and compared with the model. onnx needs `pip install 'txlplan[onnx]'`.

    Example: txlplan model export my-run --format safetensors --output exported
    """
    from txlplan.interchange import export_model

    result = export_model(checkpoint.expanduser(), output.expanduser(), one_of(target, _FORMATS, "--format"))
    document = {
        "directory": str(result.directory),
        "format": result.format,
        "files": list(result.files),
        "has_vocabulary": result.has_vocabulary,
        "largest_difference": result.largest_difference,
    }
    out = Output(as_json)
    out.document(document, lambda console: _print_exported(console, document))
    if not result.has_vocabulary:
        out.say("note: the data set of the run is not there, so the vocabulary is not in it")
    if result.format in ("safetensors", "hf"):
        out.next_step(f"txlplan model import {output} --output imported")


def _print_imported(console: Console, document: dict[str, Any]) -> None:
    vocabulary = document["vocabulary"]
    for line in (
        f"layout      {document['layout']}",
        f"parameters  {format_count(document['parameters'])}",
        f"vocabulary  {vocabulary['kind']}, {format_count(vocabulary['size'])} symbols",
        f"directory   {document['directory']}",
    ):
        console.print(line, markup=False, highlight=False)


def _print_exported(console: Console, document: dict[str, Any]) -> None:
    console.print(f"directory   {document['directory']}", markup=False, highlight=False)
    for file in document["files"]:
        console.print(f"            {file}", markup=False, highlight=False)
    if document["largest_difference"] is not None:
        console.print(f"difference  {document['largest_difference']:.1e} nats at most, from the model", highlight=False)
