"""`txlplan validate FILE.csv` where the file holds matrix products instead of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txlplan.errors import BarMissedError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from txlplan.calibration import ProductScore
    from txlplan.cli._output import Output


def holds_products(path: Path) -> bool:
    """Whether the file's columns are those of matrix products."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return {"M", "N", "K", "ms"} <= set(file.readline().strip().split(","))


def validate_products(path: Path, source: str, left_out: str | None, max_mape: float | None, output: Output) -> None:
    """Print the errors of products at their points, of every family left out, and of one device by another's.

    Raises BarMissedError where the median error of families left out is above `max_mape` per cent.
    """
    from txlplan.calibration import read_products, score_products
    from txlplan.config import to_plain

    if left_out is not None:
        raise InputError(
            f"--leave-out {left_out} is for runs", hint="of matrix products every (M, K) family is left out in turn"
        )
    scores = score_products(read_products(path))
    missed = None if max_mape is None else _missed(scores, max_mape)
    document: dict[str, object] = {"source": source, "products": [to_plain(score) for score in scores]}
    output.result(document, lambda console: _print(console, scores), missed)
    output.next_step("txlplan validate published.csv --leave-out device")


def _missed(scores: list[ProductScore], max_mape: float) -> BarMissedError | None:
    from txlplan.calibration import LEFT_OUT

    worst = max(score.median for score in scores if score.what == LEFT_OUT)
    if worst * 100 <= max_mape:
        return None
    return BarMissedError(f"median error of families left out is {worst * 100:.1f} %, above the bar of {max_mape:g} %")


def _print(console: Console, scores: list[ProductScore]) -> None:
    from rich.table import Table
    from rich.text import Text

    from txlplan.reporting import percent

    console.print(Text("matrix products: predicted against measured time", style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("predicted from", "device", "precision"):
        table.add_column(heading)
    for heading in ("n", "median", "p90", "worst"):
        table.add_column(heading, justify="right")
    for score in scores:
        shares = (percent(share) for share in (score.median, score.p90, score.worst))
        table.add_row(Text(score.what), score.device, score.precision, str(score.n), *shares)
    console.print(table)
