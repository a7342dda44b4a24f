"""Import of prices from a CSV in the shape of a SkyPilot catalog, into a price book of the user's configuration."""

from __future__ import annotations

import csv
import datetime
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from txlplan import files, resources
from txlplan.config import parse_toml, read_toml, to_toml
from txlplan.errors import InputError
from txlplan.hardware import BookEntry, DeviceProfile, PriceBook, SystemProfile, devices, systems

COLUMNS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "SpotPrice", "Region")
_KINDS: dict[str, Literal["on-demand", "spot"]] = {"Price": "on-demand", "SpotPrice": "spot"}
_MEMORY = re.compile(r"-?(\d+)gb$")
_SHOWN = 20
_CATALOG = f"give the path of a CSV with the columns {', '.join(COLUMNS)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What an import took and left."""

    path: Path
    """The price book that was written; what an earlier import left there of other systems and kinds is still in it."""
    entries: tuple[BookEntry, ...]
    """The cheapest region of each system and kind."""
    replaced: tuple[BookEntry, ...]
    """Prices of the book in whose place these stand: of the same system and kind, and not of a later day."""
    n_rows: int
    unmatched: tuple[str, ...]
    """Rows that no system profile describes, each with its line and why."""
    bad: tuple[str, ...]
    """Rows that were left out, by line."""


def import_prices(path: Path, *, date: datetime.date, region: str | None = None, skip_bad: bool = False) -> Imported:
    """Read a catalog, match its rows to systems and write them as `profiles/prices/<name of the file>.toml`.

    Of several regions the cheapest is taken, or `region` alone. An instance type matches the system of its name, without
    regard to case, `_` and `-`, and to what a cloud puts in front (`Standard_`); a row whose accelerators are not those of that
    system is bad. Nothing is written when a row is bad (unless `skip_bad`), when nothing matches, or when a price is zero,
    negative or no number. A book of that name keeps its other prices. Raises InputError.
    """
    known = {_key(system.id): system for system in systems.all()}
    bad: list[str] = []
    unmatched: list[str] = []
    found: dict[tuple[str, str], BookEntry] = {}
    n_rows = 0
    for line, row in _rows(path):
        n_rows += 1
        system = _match(row, known)
        if system is None:
            unmatched.append(f"{path}:{line}: {_why_unmatched(row)}")
        try:
            stated = _entries(row, system, date, path)
        except ValueError as error:
            bad.append(f"{path}:{line}: {error}")
            continue
        for entry in stated:
            if region is None or entry.region == region:
                key = (entry.system, entry.kind)
                found[key] = min(found.get(key, entry), entry, key=lambda one: one.rent_usd_per_h or math.inf)
    _refuse(path, bad, found, n_rows, region, skip_bad=skip_bad)
    entries = tuple(found[key] for key in sorted(found))
    target = resources.user("profiles") / "prices" / f"{path.stem}.toml"
    kept, replaced = _beside(target, found)
    book = PriceBook(id=path.stem, prices=tuple(sorted((*entries, *kept), key=lambda one: (one.system, one.kind))))
    files.write_text(target, to_toml(book))
    return Imported(path=target, entries=entries, replaced=replaced, n_rows=n_rows, unmatched=tuple(unmatched), bad=tuple(bad))


def _beside(target: Path, found: Mapping[tuple[str, str], BookEntry]) -> tuple[list[BookEntry], tuple[BookEntry, ...]]:
    """Of the prices that a book holds already, those that stay, and those that are replaced.

    A later one stays, and is the one that is used. Raises ConfigError for a file that is no book.
    """
    if not target.exists():
        return [], ()
    book = parse_toml(PriceBook, {"id": target.stem, **read_toml(target)}, str(target))
    kept: list[BookEntry] = []
    replaced: list[BookEntry] = []
    for entry in book.prices:
        new = found.get((entry.system, entry.kind))
        later = new is not None and entry.day is not None and new.day is not None and entry.day > new.day
        (kept if new is None or later else replaced).append(entry)
    return kept, tuple(replaced)


def _refuse(
    path: Path, bad: list[str], found: Mapping[tuple[str, str], BookEntry], n_rows: int, region: str | None, *, skip_bad: bool
) -> None:
    if bad and not skip_bad:
        more = f"\n… and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise InputError("\n".join(bad[:_SHOWN]) + more, hint="mend these lines, or import the others with --skip-bad")
    if not n_rows:
        raise InputError(f"{path}: no rows below the header", hint=f"expected columns {', '.join(COLUMNS)}")
    if not found:
        where = f" in region {region}" if region else ""
        raise InputError(
            f"{path}: none of {n_rows} rows{where} has the price of a known system", hint="txlplan hardware list --systems"
        )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row. Raises InputError for a file that is no catalog."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(f"{path}: no column {lacking[0]!r}", hint=f"expected columns {', '.join(COLUMNS)}")
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", hint=_CATALOG) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _match(row: Mapping[str, str], known: Mapping[str, SystemProfile]) -> SystemProfile | None:
    """The system of an instance type; TPUs go by the accelerator's name, Lambda's types lack their cloud's."""
    accelerator = row["AcceleratorName"].strip().lower()
    names = [row["InstanceType"], f"lambda-{row['InstanceType']}"]
    if accelerator.startswith("tpu-"):
        names.append(accelerator.removeprefix("tpu-"))
    return next((known[_key(name)] for name in names if _key(name) in known), None)


def _key(name: str) -> str:
    """`Standard_ND96asr_v4` → `nd96asrv4`."""
    lowered = name.strip().lower().removeprefix("standard_")
    return lowered.replace("_", "").replace("-", "")


def _entries(row: Mapping[str, str], system: SystemProfile | None, date: datetime.date, path: Path) -> list[BookEntry]:
    """The prices of a row, on demand and spot, where they are stated. Raises ValueError for one that is none."""
    prices = {kind: _price(row[column], column) for column, kind in _KINDS.items() if row[column].strip()}
    if system is None:
        return []
    _check_accelerator(row, system)
    _check_count(row, system)
    return [
        BookEntry(
            system=system.id,
            kind=kind,
            rent_usd_per_h=price,
            date=date.isoformat(),
            source=f"{path.name}, imported on {datetime.date.today().isoformat()}",
            region=row["Region"].strip() or None,
        )
        for kind, price in prices.items()
    ]


def _price(text: str, column: str) -> float:
    try:
        price = float(text)
    except ValueError:
        raise ValueError(f"{column} {text!r} is no number") from None
    if not (math.isfinite(price) and price > 0):
        raise ValueError(f"{column} {text!r} is not more than zero")
    return price


def _why_unmatched(row: Mapping[str, str]) -> str:
    accelerator, instance = row["AcceleratorName"].strip(), row["InstanceType"].strip()
    if not accelerator:
        return f"{instance or 'no instance type'} has no accelerator"
    if any(_is_device(accelerator, device) for device in devices.all()):
        return f"no system profile is called {instance!r} ({accelerator} × {row['AcceleratorCount'].strip() or '?'})"
    return f"no device profile is of the accelerator {accelerator!r} ({instance})"


def _check_accelerator(row: Mapping[str, str], system: SystemProfile) -> None:
    """That the instance has the accelerators which the system of its name has."""
    text = row["AcceleratorName"].strip()
    is_slice = _key(text.lower().removeprefix("tpu-")) == _key(system.id)
    if text and not is_slice and not _is_device(text, devices.get(system.device)):
        raise ValueError(f"AcceleratorName {text!r} of {row['InstanceType']}, but {system.id} has {system.device}")


def _is_device(accelerator: str, device: DeviceProfile) -> bool:
    """Whether a catalog's name is one of a device: words of its id that follow each other, and its memory where that is said.

    `A100-80GB`, `V100`, `RTXA6000`, `H100-SXM`, `tpu-v3-8` (a slice, of which the device is `tpu-v3`).
    """
    name = accelerator.lower()
    memory = _MEMORY.search(name)
    if memory is not None and abs(int(memory[1]) - device.memory_bytes / 2**30) > 0.1 * int(memory[1]):
        return False
    wanted = _key(_MEMORY.sub("", name))
    words = device.id.split("-")
    words += [word.rstrip("0123456789") for word in words if word.startswith("sxm")]
    runs = {"".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1)}
    runs |= {words[0] + word for word in words[1:]}
    return wanted in runs or (device.kind == "tpu" and wanted.startswith(_key(device.id)))


def _check_count(row: Mapping[str, str], system: SystemProfile) -> None:
    """The number of accelerators, where the catalog counts them as the system profile does (TPU slices count as one)."""
    text = row["AcceleratorCount"].strip()
    if not text or row["AcceleratorName"].strip().lower().startswith("tpu-"):
        return
    try:
        count = float(text)
    except ValueError:
        raise ValueError(f"AcceleratorCount {text!r} is no number") from None
    if count != system.n_devices:
        raise ValueError(f"AcceleratorCount {text} of {row['InstanceType']}, but {system.id} has {system.n_devices} devices")
