"""`txlplan model`: the configurations that are known by name, and what one implies before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli import _model_exchange
from txlplan.cli._output import JsonOption, Output
from txlplan.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.model import ModelConfig

_DTYPES = ("fp32", "bf16", "fp16")


def register(app: typer.Typer) -> None:
    """Add the command group to the application."""
    group = typer.Typer(no_args_is_help=True, help="Transformer-XL configurations and weights: list, show, import, export.")
    group.command("list")(_list)
    group.command("show")(_show)
    _model_exchange.register(group)
    app.add_typer(group, name="model")


def _list(as_json: JsonOption = False) -> None:
    """List the models that commands know by name: the shipped ones and your own.

    Example: txlplan model list
    """
    from txlplan.model import models, parameter_count

    rows = [
        {
            "id": config.id,
            "parameters": parameter_count(config),
            "n_layer": config.n_layer,
            "d_model": config.d_model,
            "vocab_size": config.vocab_size,
            "tgt_len": config.tgt_len,
            "mem_len": config.mem_len,
            "published_batch": config.published_batch,
            "name": config.name,
        }
        for config in models.all()
    ]
    output = Output(as_json)
    output.document(rows, lambda console: _print_table(console, rows))
    output.next_step("txlplan model show demo-bytes")


def _show(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Id of a model (`txlplan model list`) or a .toml file.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model's configuration and what follows from it: parameters, bytes, FLOPs per token, memory per sequence.

    Example: txlplan model show nvidia-wt103-large
    """
    from txlplan.model import models

    config = models.get(name)
    card = _card(config)
    output = Output(as_json)
    output.document(card, lambda console: _print_card(console, config, card))
    output.next_step(f"txlplan estimate --model {name}")


def _card(config: ModelConfig) -> dict[str, Any]:
    """What the configuration implies before anything is measured, as plain values."""
    from txlplan.config import to_plain
    from txlplan.model import forward_flops_per_token, parameter_count, parameter_groups
    from txlplan.units import DTYPE_BYTES

    count = parameter_count(config)
    flops = forward_flops_per_token(config)
    states = config.n_layer * config.mem_len * config.d_model
    return {
        "model": to_plain(config),
        "parameters": count,
        "parameters_by_group": parameter_groups(config),
        "parameter_bytes": {dtype: count * DTYPE_BYTES[dtype] for dtype in _DTYPES},
        "forward_flops_per_token": sum(flops.values()),
        "forward_flops_per_token_by_group": flops,
        "memory_bytes_per_sequence": {dtype: states * DTYPE_BYTES[dtype] for dtype in _DTYPES},
    }


def _print_table(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for header in ("model", "parameters", "layers", "d_model", "vocabulary", "segment", "memory", "batch"):
        table.add_column(header, justify="left" if header == "model" else "right", no_wrap=True)
    table.add_column("what it is")
    for row in rows:
        numbers = ("parameters", "n_layer", "d_model", "vocab_size", "tgt_len", "mem_len", "published_batch")
        table.add_row(row["id"], *(format_count(row[key]) for key in numbers), row["name"])
    console.print(table)


def _print_card(console: Console, config: ModelConfig, card: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for what, amount, remark in (*_parameter_rows(card), *_flops_rows(card), *_memory_rows(config, card)):
        table.add_row(what, amount, remark)
    console.print(f"{config.id}: {config.name}" if config.name else config.id, markup=False, highlight=False)
    console.print(_shape_line(config), markup=False, highlight=False)
    console.print(table)
    for key, source in config.sources.items():
        console.print(f"source of {key}: {source}", markup=False, highlight=False)
    if config.notes:
        console.print(f"note: {config.notes}", markup=False, highlight=False)


def _shape_line(config: ModelConfig) -> str:
    clusters = f"adaptive at {list(config.cutoffs)}, div_val {config.div_val}" if config.cutoffs else "full softmax"
    return (
        f"{config.n_layer} layers × {config.d_model}, {config.n_head} heads × {config.d_head}, feed-forward {config.d_inner}, "
        f"{config.norm}-norm, {config.vocab_size:,} words ({clusters}), segment {config.tgt_len}, memory {config.mem_len}"
    )


def _parameter_rows(card: dict[str, Any]) -> list[tuple[str, str, str]]:
    size = ", ".join(f"{dtype} {format_bytes(value)}" for dtype, value in card["parameter_bytes"].items())
    groups = card["parameters_by_group"].items()
    return [("parameters", format_count(card["parameters"]), size), *((f"  {name}", format_count(n), "") for name, n in groups)]


def _flops_rows(card: dict[str, Any]) -> list[tuple[str, str, str]]:
    groups = card["forward_flops_per_token_by_group"].items()
    remark = "matrix products, one sequence, full memory; training takes three times as many"
    total = ("forward FLOPs per token", format_count(card["forward_flops_per_token"]), remark)
    return [total, *((f"  {name}", format_count(flops), "") for name, flops in groups)]


def _memory_rows(config: ModelConfig, card: dict[str, Any]) -> list[tuple[str, str, str]]:
    size = card["memory_bytes_per_sequence"]
    formula = f"fp32: {config.n_layer} layers × {config.mem_len} states × {config.d_model}; half in bf16 or fp16"
    return [("memory per sequence", format_bytes(size["fp32"]), formula)]
