"""`txlplan data`: from text files to a data set, and what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.data import Dataset, Settings

_SPLIT = "0.9,0.05,0.05"

_Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, directories, quoted globs, or - for stdin.")]
_OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The data set: a directory that is made, or made again.")]
_Kind = Annotated[str | None, typer.Option("--vocabulary", help="bytes (unless set), characters, words, wordpiece or bpe.")]
_VocabularyOf = Annotated[
    Path | None, typer.Option("--vocabulary-of", help="Use the vocabulary of this data set or imported model as it is.")
]
_Size = Annotated[int | None, typer.Option("--vocabulary-size", help="Most symbols (wordpiece and bpe: 16384 unless set).")]
_MinCount = Annotated[int, typer.Option("--min-count", help="Rarer characters, words and merges get no symbol.")]
_Special = Annotated[list[str] | None, typer.Option("--special", help="A further symbol that is never cut; may be repeated.")]
_Split = Annotated[str | None, typer.Option("--split", help=f"Shares of train,valid,test: {_SPLIT} unless set.")]
_Valid = Annotated[list[str] | None, typer.Option("--valid", help="Input of the valid split; INPUT is then train alone.")]
_Test = Annotated[list[str] | None, typer.Option("--test", help="Input of the test split; INPUT is then train alone.")]
_Documents = Annotated[
    str, typer.Option("--documents", help="What a document is: file, line, blank-line, 'starts:REGEX' or 'ends:REGEX'.")
]
_Assignment = Annotated[
    str, typer.Option("--assignment", help="hash: draw whole documents; ordered: cut the text in order; auto: by their number.")
]
_Processes = Annotated[int | None, typer.Option("--processes", min=1, help="Cores to use; all unless set.")]
_Directory = Annotated[Path, typer.Argument(help="What `txlplan data prepare` wrote.")]
_Verify = Annotated[bool, typer.Option("--verify", help="Read every file and compare its checksum.")]
_Top = Annotated[int, typer.Option("--top", min=0, help="How many of the most frequent tokens to show.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    group = typer.Typer(no_args_is_help=True, help="Prepare text for training, and look at what was prepared.")
    group.command("prepare")(prepare)
    group.command("inspect")(inspect)
    app.add_typer(group, name="data")


def prepare(
    inputs: _Inputs,
    output: _OutputOption,
    vocabulary: _Kind = None,
    vocabulary_of: _VocabularyOf = None,
    vocabulary_size: _Size = None,
    min_count: _MinCount = 1,
    special: _Special = None,
    split: _Split = None,
    valid: _Valid = None,
    test: _Test = None,
    documents: _Documents = "file",
    assignment: _Assignment = "auto",
    processes: _Processes = None,
    as_json: JsonOption = False,
) -> None:
    """Split text, make a vocabulary, and write token files. Done again unchanged, it does nothing.

    Example: txlplan data prepare corpus/ 'more/*.txt.gz' --output my-data --vocabulary bpe --vocabulary-size 8192
    """
    from txlplan import data

    if split is not None and (valid or test):
        raise InputError("--split has no effect beside --valid and --test", hint="leave one of them out")
    if vocabulary is not None and vocabulary_of is not None:
        raise InputError("--vocabulary has no effect beside --vocabulary-of", hint="leave one of them out")
    kind = (
        data.vocabulary_of(vocabulary_of).kind if vocabulary_of is not None else "bytes" if vocabulary is None else vocabulary
    )
    settings = data.Settings(
        vocabulary=kind,  # type: ignore[arg-type]  # Settings checks it
        vocabulary_of=str(vocabulary_of.expanduser().absolute()) if vocabulary_of is not None else None,
        vocabulary_size=vocabulary_size,
        min_count=min_count,
        special_symbols=tuple(special or ()),
        ratios=data.parse_ratios(_SPLIT if split is None else split),
        documents=documents,
        assignment=assignment,  # type: ignore[arg-type]  # Settings checks it
    )
    unchanged = _prepared((inputs, valid or (), test or ()), output, settings, processes)
    out, dataset = Output(as_json), data.open_dataset(output)
    if unchanged:
        out.say(f"{output} is there already, made of the same inputs and settings: nothing done")
    summary = _summary(dataset)
    out.document({"directory": str(output), "unchanged": unchanged, **summary}, lambda console: _render(console, summary))
    _warn(out, dataset)
    out.next_step(f"txlplan data inspect {output} --verify")


def inspect(directory: _Directory, verify: _Verify = False, top: _Top = 10, as_json: JsonOption = False) -> None:
    """Show a data set: its inputs, splits, tokens, characters, unigram entropy and most frequent tokens.

    Example: txlplan data inspect my-data --verify
    """
    from txlplan import data
    from txlplan.config import to_plain

    out, dataset = Output(as_json), data.open_dataset(directory)
    verified = data.verify_checksums(directory, dataset.manifest) if verify else None
    summary = _summary(dataset) | {"most_frequent_tokens": _most_frequent(dataset, top)}
    plain = {"directory": str(directory), **summary, "verified_files": verified, "manifest": to_plain(dataset.manifest)}
    out.document(plain, lambda console: _render(console, summary))
    if verified is not None:
        out.say(f"the checksums of {len(verified)} files are right")
    _warn(out, dataset)
    out.next_step("txlplan model list")


def _prepared(inputs: tuple[Any, Any, Any], output: Path, settings: Settings, processes: int | None) -> bool:
    """Prepare with progress shown; True when there was nothing to do."""
    from txlplan.cli._data_progress import ShownProgress
    from txlplan.data import prepare as prepare_data

    progress = ShownProgress()
    train, valid, test = inputs
    try:
        prepare_data(train, output, valid=valid, test=test, settings=settings, processes=processes, progress=progress)
    finally:
        progress.close()
    return progress.is_unchanged


def _summary(dataset: Dataset) -> dict[str, Any]:
    """What both commands show, as plain values."""
    from txlplan.data import unigram_entropy_bits_per_character

    manifest = dataset.manifest
    return {
        "vocabulary": {
            "kind": manifest.vocabulary.kind,
            "size": manifest.vocabulary.size,
            "dtype": dataset.vocabulary.dtype.name,
        },
        "inputs": len(manifest.inputs),
        "input_bytes": sum(file.size_bytes for file in manifest.inputs),
        "assignment": manifest.assignment,
        "splits": {
            name: {
                "documents": split.documents,
                "bytes": split.bytes,
                "characters": split.characters,
                "tokens": split.tokens,
                "unknown_tokens": split.unknown_tokens,
                "unigram_entropy_bits_per_character": unigram_entropy_bits_per_character(dataset, name),
                "unigram_entropy_bits_per_token": split.unigram_entropy_bits_per_token,
            }
            for name, split in manifest.splits.items()
        },
    }


def _most_frequent(dataset: Dataset, top: int) -> list[dict[str, Any]]:
    import numpy as np

    counts = dataset.counts("train")
    best = [int(number) for number in np.argsort(-counts, kind="stable")[:top] if counts[number]]
    total = int(counts.sum())
    return [
        {
            "id": number,
            "token": dataset.vocabulary.symbol(number),
            "count": int(counts[number]),
            "share": counts[number] / total,
        }
        for number in best
    ]


def _render(console: Console, summary: dict[str, Any]) -> None:
    from txlplan.units import format_bytes, format_count

    vocabulary = summary["vocabulary"]
    lines = (
        f"vocabulary: {vocabulary['kind']}, {format_count(vocabulary['size'])} symbols, tokens of {vocabulary['dtype']}",
        f"inputs: {format_count(summary['inputs'])}, {format_bytes(summary['input_bytes'])}",
        f"assignment: {summary['assignment']}",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False)
    _render_splits(console, summary["splits"])
    if summary.get("most_frequent_tokens"):
        _render_tokens(console, summary["most_frequent_tokens"])


def _render_splits(console: Console, splits: dict[str, dict[str, Any]]) -> None:
    """One row a split, fit for 80 columns; the entropy is that of single tokens: what guessing them by frequency costs."""
    from rich.table import Table

    from txlplan.units import format_bytes, format_count

    table = Table("split", box=None, pad_edge=False, collapse_padding=True)
    for column in ("documents", "text", "characters", "tokens", "unknown", "bits/char", "bits/token"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, split in splits.items():
        counts = [format_count(split[key]) for key in ("characters", "tokens", "unknown_tokens")]
        entropies = [f"{split[f'unigram_entropy_bits_per_{unit}']:.3f}" for unit in ("character", "token")]
        documents, text = format_count(split["documents"]), format_bytes(split["bytes"])
        table.add_row(name, documents, text, *counts, *entropies)
    console.print(table)
    console.print("bits: entropy of single tokens, what guessing each by its frequency costs", highlight=False)


def _render_tokens(console: Console, tokens: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("most frequent in train", box=None)
    for column in ("id", "count", "share"):
        table.add_column(column, justify="right")
    for token in tokens:
        table.add_row(Text(repr(token["token"])), str(token["id"]), f"{token['count']:,}", f"{token['share']:.1%}")
    console.print(table)


def _warn(out: Output, dataset: Dataset) -> None:
    """Say where much text is lost to `<unk>`."""
    for name, split in dataset.manifest.splits.items():
        share = split.unknown_tokens / split.tokens
        if share > 0.1:
            out.say(f"note: {share:.0%} of the {name} split's tokens are unknown to the vocabulary; their text is lost")
