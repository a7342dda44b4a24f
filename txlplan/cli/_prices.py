"""`txlplan prices`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from txlplan.cli._output import JsonOption, Output
from txlplan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.hardware import Price

_SHOWN = 20
"""Rows that are listed on a terminal."""


def register(app: typer.Typer) -> None:
    """Add the group to the application."""
    group = typer.Typer(no_args_is_help=True, help="What systems cost: show and import prices.")
    group.command("show")(_show)
    group.command("import")(_import)
    app.add_typer(group, name="prices")


def _show(
    system: Annotated[
        str | None, typer.Argument(metavar="SYSTEM", help="One system, as in `compare --on`; by default all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show prices with their date, age and source; those older than 90 days are marked stale.

    Example: txlplan prices show p4d.24xlarge
    """
    from txlplan.advice import candidate
    from txlplan.config import to_plain
    from txlplan.hardware import age_days, booked_without_system, is_stale, priced, systems

    today = datetime.date.today()
    chosen = [candidate(system).cluster.system] if system else [priced(each) for each in systems.all()]
    found = [(each.id, price) for each in chosen for price in each.prices]
    rows = [
        {"system": name, **to_plain(price), "age_days": age_days(price, today), "stale": is_stale(price, today)}
        for name, price in found
    ]
    output = Output(as_json)
    output.document(rows, lambda console: _print(console, rows, found, system, today))
    for text in booked_without_system():
        output.say(f"note: {text}")
    if found:
        output.next_step(f"txlplan compare --model nvidia-wt103-base --tokens 1.8e9 --on {system or found[0][0]}")


def _print(
    console: Console, rows: list[dict[str, Any]], found: list[tuple[str, Price]], system: str | None, today: datetime.date
) -> None:
    from rich.table import Table

    from txlplan.hardware import age_text

    if not rows:
        console.print(f"no price is known of {system or 'any system'}", markup=False, highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for header in ("system", "kind", "price", "date", "age", "source"):
        table.add_column(header, overflow="fold")
    for row, (_, price) in zip(rows, found, strict=True):
        age = age_text(price, today)
        where = price.source + (f" ({price.region})" if price.region else "")
        table.add_row(row["system"], price.kind, _amount(price), price.date, age + (", stale" if row["stale"] else ""), where)
    console.print(table)


def _amount(price: Price) -> str:
    if price.rent_usd_per_h is not None:
        return f"${price.rent_usd_per_h:,.4g}/h"
    return f"${price.purchase_usd:,.0f}"


def _import(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A catalog in the shape of SkyPilot's.")],
    region: Annotated[str | None, typer.Option("--region", help="Take this region only; by default the cheapest.")] = None,
    date: Annotated[str | None, typer.Option("--date", help="Day of the prices, ISO; by default today.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that cannot be read.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import prices from a CSV with the columns InstanceType, AcceleratorName, AcceleratorCount, Price, SpotPrice, Region.

    Rows are matched to systems by their instance type. The newest price of a kind is the one that is used. What a file of the
    same name brought before of other systems stays.

    Example: txlplan prices import aws-vms.csv --region us-east-1
    """
    from txlplan.advice import import_prices
    from txlplan.config import to_plain

    try:
        day = datetime.date.fromisoformat(date) if date is not None else datetime.date.today()
    except ValueError:
        raise InputError(f"--date {date!r} is no date", hint="write it like 2026-11-24") from None
    if day > datetime.date.today():
        raise InputError(f"--date {date} is still to come", hint="a price has the day on which it was seen")
    found = import_prices(file, date=day, region=region, skip_bad=skip_bad)
    output = Output(as_json)
    document = {
        "path": str(found.path),
        "prices": to_plain(found.entries),
        "rows": found.n_rows,
        "replaced": to_plain(found.replaced),
        "unmatched": list(found.unmatched),
        "bad": list(found.bad),
    }
    output.document(document, lambda console: _print_import(console, document))
    output.next_step("txlplan prices show")


def _print_import(console: Console, document: dict[str, Any]) -> None:
    for entry in document["prices"]:
        where = f" in {entry['region']}" if entry["region"] else ""
        text = f"{entry['system']}: ${entry['rent_usd_per_h']:,.4g}/h {entry['kind']}{where}"
        console.print(text, markup=False, highlight=False)
    for entry in document["replaced"]:
        text = f"replaced: {entry['system']} {entry['kind']}, ${entry['rent_usd_per_h'] or entry['purchase_usd']:,.4g}"
        console.print(f"{text} of {entry['date']} ({entry['source']})", markup=False, highlight=False)
    for text in document["bad"]:
        console.print(f"left out: {text}", markup=False, highlight=False)
    shown = document["unmatched"][:_SHOWN]
    for text in shown:
        console.print(f"not matched: {text}", markup=False, highlight=False)
    if more := len(document["unmatched"]) - len(shown):
        console.print(f"not matched: {more} more rows (--json lists them)", markup=False, highlight=False)
    console.print(
        f"{document['rows']} rows, {len(document['unmatched'])} of unknown instance types, {len(document['bad'])} bad; "
        f"wrote {len(document['prices'])} prices to {document['path']}",
        markup=False,
        highlight=False,
    )
