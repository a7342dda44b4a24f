"""`txlplan validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.errors import BarMissedError, InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from txlplan.validation import Validation


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(validate)


def validate(
    source: Annotated[str, typer.Argument(help="What to score: `store`, the record store.")] = "store",
    max_mape: Annotated[
        float | None,
        typer.Option(help="End with exit code 5 where the mean absolute error of tokens/s is above so many per cent."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score predictions: what each run was estimated to take beside what it took, overall and by group.

    Example: txlplan validate store --max-mape 15
    """
    from txlplan.config import to_plain
    from txlplan.records import open_store
    from txlplan.validation import validate as score_records

    if source != "store":
        raise InputError(f"{source!r} cannot be scored", hint="`txlplan validate store` scores the record store")
    if max_mape is not None and max_mape <= 0:
        raise InputError(f"--max-mape {max_mape} must be more than zero", hint="in per cent: --max-mape 15")
    output = Output(as_json)
    scored = score_records(open_store().list())
    missed = None if max_mape is None else _missed(scored, max_mape)
    document = to_plain(scored) | {"rows": _row_documents(scored)}
    if missed:
        document["error"] = {"message": missed.message, "hint": missed.hint, "exit_code": missed.exit_code}
    output.document(document, lambda console: _print(console, scored))
    if missed and as_json:
        raise typer.Exit(missed.exit_code)  # (the one document holds the error already)
    if missed:
        raise missed
    output.next_step("txlplan report")


def _row_documents(scored: Validation) -> list[dict[str, object]]:
    """Rows with their relative errors, which are properties and so no fields."""
    from txlplan.config import to_plain

    documents = []
    for row in scored.rows:
        document = to_plain(row)
        for name in ("tokens_per_s", "peak_memory_bytes"):
            quantity = getattr(row, name)
            document[name] |= {"relative_error": quantity.relative_error, "inside": quantity.inside}
        documents.append(document)
    return documents


def _missed(scored: Validation, max_mape: float) -> BarMissedError | None:
    mape = scored.overall.tokens_per_s.mape
    if mape is None:
        return BarMissedError("nothing to score: no record has both an estimate and a measured throughput")
    if mape * 100 <= max_mape:
        return None
    return BarMissedError(
        f"mean absolute error of tokens/s is {mape * 100:.1f} %, above the bar of {max_mape:g} %",
        hint="`txlplan hardware probe` measures this machine again",
    )


def _print(console: Console, scored: Validation) -> None:
    from rich.text import Text

    for name, title in (("tokens_per_s", "throughput"), ("peak_memory_bytes", "peak memory")):
        console.print(Text(f"{title}: predicted against measured", style="bold"))
        console.print(_table(scored, name))
        console.print()
    for item in scored.unscored:
        console.print(f"not scored: {item.id}: {item.reason}", markup=False, highlight=False)


def _table(scored: Validation, quantity: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    from txlplan.reporting import percent

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("records")
    for heading in ("n", "MAPE", "median", "p90", "bias", "in 80 % range"):
        table.add_column(heading, justify="right")
    named = {"all": scored.overall}
    named |= {f"{grouping} {value}": item for grouping, values in scored.groups.items() for value, item in values.items()}
    for label, summary in named.items():
        figures = getattr(summary, quantity)
        absolute = [percent(share) for share in (figures.mape, figures.median, figures.p90)]
        table.add_row(Text(label), str(figures.n), *absolute, percent(figures.bias, signed=True), percent(figures.coverage))
    return table
