"""`txlplan validate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import measurements_path
from txlplan.cli._validate_products import holds_products, validate_products
from txlplan.errors import BarMissedError, InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from txlplan.validation import Order, Ranking, Validation

STORE = "store"
_LEAVE_OUT = ("device", "model", "stack")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(validate)


def validate(
    source: Annotated[
        str, typer.Argument(help="What to score: `store`, the record store, or a CSV file of published runs.")
    ] = STORE,
    left_out: Annotated[
        str | None,
        typer.Option(
            "--leave-out", metavar="GROUP", help="device, model or stack: predict each by a fit to all others (CSV file)."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Estimate the runs of the store again, with the profiles that are there now.")
    ] = False,
    max_mape: Annotated[
        float | None,
        typer.Option(help="End with exit code 5 where the mean absolute error of tokens/s is above so many per cent."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with parity charts and every row.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score predictions: what each run was estimated to take beside what it took, overall and by group.

    Runs of the store are scored by the estimates that were made before them (with --again by new ones); rows of a CSV file
    (its columns are those of the shipped profiles/measurements/published.csv, which its bare name finds) by estimates made
    now, under the stack that each names, or the nearest version of it. Rows that cannot be predicted are listed, and miss any
    bar.

    A CSV file of matrix products (the shipped deepbench_gemm.csv) is scored at its points and with families left out.

    Example: txlplan validate published.csv --leave-out device --max-mape 15
    """
    from txlplan.config import to_plain

    _check(source, left_out, max_mape, again)
    output = Output(as_json)
    if source != STORE and holds_products(measurements_path(source)):
        if html is not None:
            raise InputError("--html has no effect on matrix products", hint="leave it out")
        validate_products(measurements_path(source), source, left_out, max_mape, output)
        return
    scored = _scored(source, left_out, again)
    ranking = None if source == STORE else _ranking(scored)
    missed = None if max_mape is None else _missed(scored, max_mape, left_out, source)
    document = to_plain(scored) | {
        "source": source,
        "leave_out": left_out,
        "again": again,
        "rows": _row_documents(scored),
        "wrong_fits": scored.wrong_fits,
        "ranking": to_plain(ranking),
    }
    if html is not None:
        from txlplan.reporting import write_validation

        title = "record store" if source == STORE else Path(source).name
        output.say(f"wrote {write_validation(scored, html, title=title, left_out=left_out, ranking=ranking)}")
    output.result(document, lambda console: _print(console, scored, ranking, left_out), missed)
    output.next_step(
        "txlplan calibrate store --dry-run" if source == STORE else "txlplan validate published.csv --leave-out device"
    )


def _check(source: str, left_out: str | None, max_mape: float | None, again: bool) -> None:
    from txlplan.cli._targets import one_of

    if source != STORE and not source.endswith(".csv"):
        raise InputError(
            f"{source!r} cannot be scored", hint="`txlplan validate store` scores the record store, else a .csv file"
        )
    if max_mape is not None and not 0 < max_mape < math.inf:
        raise InputError(f"--max-mape {max_mape} must be more than zero, and finite", hint="in per cent: --max-mape 15")
    if again and source != STORE:
        raise InputError("--again estimates runs of the store again: rows of a file always are", hint="leave it out")
    if left_out is None:
        return
    one_of(left_out, _LEAVE_OUT, "--leave-out")
    if source == STORE:
        raise InputError(
            "--leave-out refits to a file of published runs", hint="txlplan validate published.csv --leave-out device"
        )


def _scored(source: str, left_out: str | None, again: bool) -> Validation:
    from txlplan.validation import Published, Row, Unscored, predict, read_published, summarise
    from txlplan.validation import validate as score_records

    if source == STORE:
        from txlplan.records import open_store

        return score_records(open_store().list(), again=again)
    runs = read_published(measurements_path(source))
    if left_out is None:
        return summarise(predict(runs))
    from txlplan.calibration import Problem, leave_out

    rows = predict(runs)
    readable = [run for run, row in zip(runs, rows, strict=True) if isinstance(run, Published) and isinstance(row, Row)]
    return summarise([*leave_out(Problem.of(readable), left_out), *(row for row in rows if isinstance(row, Unscored))])


def _ranking(scored: Validation) -> Ranking:
    from txlplan.hardware import devices
    from txlplan.validation import rank

    known = devices.paths()
    return rank(scored.rows, {name: devices.get(name) for name in {row.device for row in scored.rows} if name in known})


def _row_documents(scored: Validation) -> list[dict[str, object]]:
    """Rows with their relative errors, which are properties and so no fields."""
    from txlplan.config import to_plain

    documents = []
    for row in scored.rows:
        document = to_plain(row)
        for name in ("tokens_per_s", "peak_memory_bytes"):
            quantity = getattr(row, name)
            document[name] |= {"relative_error": quantity.relative_error, "inside": quantity.inside}
        document["fits"] = {"predicted": row.fits_predicted, "measured": row.fits_measured}
        documents.append(document)
    return documents


def _missed(scored: Validation, max_mape: float, left_out: str | None, source: str) -> BarMissedError | None:
    """Left out, rows of one device, stack and task are averaged first: the largest group is no more than a group."""
    mape = scored.overall.tokens_per_s.mape if left_out is None else scored.mean_of_groups
    if mape is None:
        return BarMissedError("nothing to score: no row has both an estimate and a measured throughput")
    if source != STORE and scored.unscored:
        return BarMissedError(f"{len(scored.unscored)} rows could not be predicted: {scored.unscored[0].id}, …")
    if mape * 100 <= max_mape:
        return None
    hint = "`txlplan calibrate store` fits its stack to them" if source == STORE else None
    return BarMissedError(f"mean absolute error of tokens/s is {mape * 100:.1f} %, above the bar of {max_mape:g} %", hint=hint)


def _print(console: Console, scored: Validation, ranking: Ranking | None, left_out: str | None) -> None:
    from rich.text import Text

    from txlplan.reporting import percent

    if left_out:
        console.print(Text(f"each {left_out} predicted by a fit to all others", style="bold"))
        console.print(f"tokens/s, mean over groups of device, stack and task: {percent(scored.mean_of_groups)}")
        console.print()
    for name, title in {"tokens_per_s": "throughput", "peak_memory_bytes": "peak memory"}.items():
        console.print(Text(f"{title}: predicted against measured", style="bold"))
        console.print(_table(scored, name))
        console.print()
    if not left_out:
        _print_fits(console, scored)
    if ranking is not None and ranking.predicted.pairs:
        _print_ranking(console, ranking)
    for item in scored.unscored:
        console.print(f"not scored: {item.id}: {item.reason}", markup=False, highlight=False)


def _print_fits(console: Console, scored: Validation) -> None:
    fits = f"fits in memory: {len(scored.rows) - len(scored.wrong_fits)} of {len(scored.rows)} right"
    console.print(fits + (f"; wrong: {', '.join(scored.wrong_fits)}" if scored.wrong_fits else ""), highlight=False)


def _print_ranking(console: Console, ranking: Ranking) -> None:
    """What a buyer relies on, beside what the data sheets alone would say."""
    from txlplan.reporting import percent

    def told(order: Order) -> str:
        return f"{percent(order.right)} of {order.pairs:,} pairs in order, ratio off by {percent(order.ratio_error)}"

    console.print(f"two systems compared, by prediction: {told(ranking.predicted)}", highlight=False)
    console.print(f"the one with the higher peak wins: {told(ranking.by_peak)}", highlight=False)
    if ranking.systems:
        chosen = f"the setting predicted to be fastest, of those measured on each of {ranking.systems} systems"
        console.print(f"{chosen}: {percent(ranking.choice_loss, digits=2)} slower than the fastest", highlight=False)


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
