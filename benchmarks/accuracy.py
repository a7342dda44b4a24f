"""The tables of docs/concepts/accuracy.md, from the commands that the page names: `python benchmarks/accuracy.py`.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`. `--check` writes nothing and exits 5 where the page says
something else than the commands print. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from txlplan.hardware import devices

PAGE = Path(__file__).resolve().parent.parent / "docs" / "concepts" / "accuracy.md"
KINDS = ("device", "model", "stack")
WORST = 6

Answers = Mapping[str, Any]


def answer(*arguments: str) -> Any:
    """What `txlplan validate ... --json` prints."""
    command = [sys.executable, "-m", "txlplan", "validate", *arguments, "--json"]
    print(f"txlplan {' '.join(command[3:])}", file=sys.stderr)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def answers() -> dict[str, Any]:
    """Every answer that the page shows a figure of."""
    left_out = {kind: answer("published.csv", "--leave-out", kind) for kind in KINDS}
    others = {"fitted": "published.csv", "gpu": "txlplan.csv", "products": "deepbench_gemm.csv"}
    return {**left_out, **{name: answer(file) for name, file in others.items()}}


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def signed(share: float) -> str:
    return f"{'−' if share < 0 else '+'}{percent(abs(share))}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def left_out(got: Answers) -> str:
    """One line a kind of group that was left out."""
    rows = []
    for kind in KINDS:
        speed, memory = got[kind]["overall"]["tokens_per_s"], got[kind]["overall"]["peak_memory_bytes"]
        rows.append(
            [
                f"`{kind}`",
                percent(got[kind]["mean_of_groups"]),
                percent(speed["mape"]),
                percent(speed["coverage"]),
                percent(memory["mape"]),
                percent(max(abs(row) for row in errors(got[kind], "peak_memory_bytes"))),
            ]
        )
    head = ["left out, `--leave-out`", "tokens/s, mean over (device, stack, task)", "over rows", "in the 80 % range"]
    return table([*head, "peak memory", "largest"], rows)


def errors(answer: Answers, quantity: str) -> list[float]:
    """Relative errors of all rows that were measured."""
    found = [row[quantity]["relative_error"] for row in answer["rows"]]
    return [error for error in found if error is not None]


def groups(got: Answers) -> str:
    """Devices, models and stacks side by side, each from the fit that never saw it, best first."""
    names = {each.id: each.name.removeprefix("NVIDIA ") for each in devices.all()}
    columns = []
    for kind in KINDS:
        found = got[kind]["groups"][kind]
        scored = sorted((each["tokens_per_s"]["mape"], name) for name, each in found.items() if each["tokens_per_s"]["n"])
        columns.append([(names.get(name, f"`{name}`"), percent(error)) for error, name in scored])
    rows = []
    for number in range(max(map(len, columns))):
        cells = [column[number] if number < len(column) else ("", "") for column in columns]
        rows.append([cell for pair in cells for cell in pair])
    return table([cell for kind in KINDS for cell in (f"{kind} left out", "error")], rows)


def fitted(got: Answers) -> str:
    """The error over all rows as shipped."""
    rows = []
    for quantity, name in (("tokens_per_s", "tokens/s"), ("peak_memory_bytes", "peak memory")):
        found = got["fitted"]["overall"][quantity]
        shares = [percent(found[key]) for key in ("mape", "median", "p90")]
        rows.append([name, str(found["n"]), *shares, signed(found["bias"]), percent(found["coverage"])])
    known = [row["fits"] for row in got["fitted"]["rows"] if row["fits"]["measured"] is not None]
    right = sum(fits["predicted"] == fits["measured"] for fits in known)
    rows.append(["fits, or runs out of memory", str(len(known)), f"{right} right", "", "", "", ""])
    return table(["", "rows", "mean", "median", "90th percentile", "bias", "in the 80 % range"], rows)


def worst(got: Answers) -> str:
    """The rows whose throughput or memory is furthest off, as shipped."""
    found = []
    for row in got["fitted"]["rows"]:
        what = [row["id"], row["device"], row["model"], row["stack"], f"{row['task']}, {row['precision']}"]
        for quantity, name in (("tokens_per_s", "tokens/s"), ("peak_memory_bytes", "peak memory")):
            error = row[quantity]["relative_error"]
            if error is not None:
                found.append((abs(error), name, [*what, name, signed(error)]))
    speed = sorted((each for each in found if each[1] == "tokens/s"), reverse=True)[:WORST]
    memory = sorted((each for each in found if each[1] == "peak memory"), reverse=True)[: WORST // 2]
    return table(["row", "device", "model", "stack", "what", "", "error"], [cells for _, _, cells in [*speed, *memory]])


def products(got: Answers) -> str:
    """Matrix products: at their points, families left out, and from one device to the other."""
    rows = [
        [each["what"], each["device"], each["precision"], str(each["n"]), percent(each["median"]), percent(each["p90"])]
        for each in got["products"]["products"]
    ]
    return table(["predicted from", "device", "precision", "products", "median error", "90th percentile"], rows)


def ranking(got: Answers) -> str:
    """How often two systems come in the right order."""
    rows = []
    for name, kind, key in (
        ("predicted", "fitted", "predicted"),
        ("predicted, device left out", "device", "predicted"),
        ("the one with the higher peak FLOP/s wins", "fitted", "by_peak"),
    ):
        found = got[kind]["ranking"][key]
        rows.append([name, f"{percent(found['right'])} of {found['pairs']}", percent(found["ratio_error"])])
    return table(["", "pairs in order", "ratio off by"], rows)


def shared(got: Answers) -> str:
    """How much of the squared error of a device that was left out is common to its stack, and to it under its stack.

    Of log(predicted / measured) of tokens/s: variance about the means of groups, by as many rows as there are less the groups.
    """
    rows = [row for row in got["device"]["rows"] if row["tokens_per_s"]["relative_error"] is not None]

    def variance(*keys: str) -> float:
        errors: dict[tuple[str, ...], list[float]] = {}
        for row in rows:
            errors.setdefault(tuple(row[key] for key in keys), []).append(math.log1p(row["tokens_per_s"]["relative_error"]))
        squares = sum((error - fmean(mine)) ** 2 for mine in errors.values() for error in mine)
        return squares / (len(rows) - len(errors))

    every, of_stack, of_device = variance(), variance("stack"), variance("stack", "device")
    cells = [
        ["one stack", percent(1 - of_stack / every)],
        ["of the rest: one device too (`shared_device_error`)", percent(1 - of_device / of_stack)],
    ]
    return table(["in common", "of the variance"], cells)


def gpu(got: Answers) -> str:
    """Our own runs on a GPU, and their mean error."""
    rows = []
    for row in got["gpu"]["rows"]:
        speed, peak = row["tokens_per_s"], row["peak_memory_bytes"]["relative_error"]
        told = [f"{speed[key]:,.0f}" for key in ("measured", "predicted")]
        rows.append([f"`{row['id']}`", *told, signed(speed["relative_error"]), "" if peak is None else signed(peak)])
    means = [percent(got["gpu"]["overall"][quantity]["mape"]) for quantity in ("tokens_per_s", "peak_memory_bytes")]
    rows.append(["mean", "", "", *means])
    return table(["run", "tokens/s measured", "predicted", "error", "of peak memory"], rows)


TABLES = (left_out, groups, fitted, worst, gpu, products, ranking, shared)


def filled(page: str, got: Answers) -> str:
    """The page with every table that it marks written anew."""
    for make in TABLES:
        name = make.__name__.replace("_", "-")
        block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(block.findall(page)) != 1:
            raise SystemExit(f"{PAGE.name} marks the table {name} {len(block.findall(page))} times, not once")
        page = block.sub(f"\\g<1>{make(got)}\n\\g<2>", page)
    return page


def main() -> None:
    got = answers()
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before, got)
    same = before == after
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(after, encoding="utf-8")
    print(json.dumps({"page": PAGE.name, "tables": len(TABLES), "up_to_date": same}))
    if "--check" in sys.argv[1:] and not same:
        raise SystemExit(5)


if __name__ == "__main__":
    main()
