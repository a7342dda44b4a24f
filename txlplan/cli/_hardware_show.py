"""`txlplan hardware show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from txlplan import units
from txlplan.cli._output import JsonOption, Output
from txlplan.cli._targets import LOCAL
from txlplan.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from txlplan.config import Catalog
    from txlplan.hardware import DeviceProfile, StackProfile, SystemProfile


def show(
    name: str = typer.Argument(
        metavar="ID", help="A device, system or stack, a profile's .toml file, or `local` for this machine."
    ),
    as_json: JsonOption = False,
) -> None:
    """Show every figure of a profile with its source.

    Example: txlplan hardware show v100-sxm2-16gb
    """
    from txlplan.config import to_plain

    output = Output(as_json)
    found = _find(name)
    document = [{"kind": kind, "file": path, "profile": to_plain(profile)} for kind, path, profile in found]
    output.document(document[0] if len(document) == 1 else document, lambda console: _print_profiles(console, found))
    is_detected = any(path is None for _, path, _ in found)
    output.next_step("txlplan hardware probe" if is_detected else "txlplan hardware list --systems")


_Found = tuple[str, str | None, Any]
"""Kind, file (None: it was detected, and no file describes it) and profile."""


def _catalogs() -> tuple[tuple[str, Catalog[Any]], ...]:
    from txlplan.hardware import devices, stacks, systems

    return ("device", devices), ("system", systems), ("stack", stacks)


def _find(name: str) -> list[_Found]:
    """Every profile of this id: a device, a system and a stack may share one; of `local` those that stand for this machine."""
    catalogs = _catalogs()
    if name == LOCAL:
        return _this_machine()
    if name.endswith(".toml"):
        parent = catalogs[0][1].path(name).parent.name
        kind, catalog = next((each for each in catalogs if each[1].directory == parent), catalogs[0])
        return [(kind, name, catalog.get(name))]
    named = [(kind, catalog) for kind, catalog in catalogs if name in catalog.paths()]
    found: list[_Found] = [(kind, str(catalog.path(name)), catalog.get(name)) for kind, catalog in named]
    if not found and name.startswith(f"{LOCAL}-"):  # (what plans call a machine that was not probed)
        found = [each for each in _this_machine() if each[2].id == name]
    if not found:
        import difflib

        known = [each for _, catalog in catalogs for each in catalog.paths()]
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(dict.fromkeys(nearest))}" if nearest else "`txlplan hardware list` shows all"
        raise ConfigError(f"no device, system or stack is named {name!r}", hint=hint)
    return found


def _this_machine() -> list[_Found]:
    """What other commands take for `local`: as probed, or else as detected, with a shipped stack."""
    from txlplan.detection import this_machine

    system, device, stack = this_machine()
    profiles: tuple[Any, ...] = (device, system, stack)
    return [
        (kind, str(catalog.path(profile.id)) if _holds(catalog, profile) else None, profile)
        for (kind, catalog), profile in zip(_catalogs(), profiles, strict=True)
    ]


def _holds(catalog: Catalog[Any], profile: Any) -> bool:
    return profile.id in catalog.paths() and catalog.get(profile.id) == profile


def _print_profiles(console: Console, found: Sequence[_Found]) -> None:
    from rich.table import Table

    for kind, path, profile in found:
        console.print(f"{kind} {profile.id}", style="bold", highlight=False)
        console.print(path or "as detected: no file describes it", style="dim", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("figure", "value", "source"):
            table.add_column(title, overflow="fold")
        for key, value, source in _figures(profile):
            table.add_row(key, value, source)
        console.print(table)


def _figures(profile: DeviceProfile | SystemProfile | StackProfile) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value as a file states it, source."""
    import tomllib

    from txlplan.config import to_toml

    raw = tomllib.loads(to_toml(profile))
    sources = raw.pop("sources", {})
    for key in ("id", "prices", "efficiency"):
        raw.pop(key, None)
    for key, value in _flattened(raw):
        yield key, value, _source_of(key, sources)
    for price in getattr(profile, "prices", ()):
        amount = price.rent_usd_per_h if price.rent_usd_per_h is not None else price.purchase_usd
        per = "/h" if price.rent_usd_per_h is not None else ""
        yield f"price.{price.kind}", f"{units.format_usd(amount)}{per} ({price.date})", price.source
    from txlplan.hardware import PRODUCTS

    for point in getattr(profile, "efficiency", ()):
        shape = f" {point.m}x{point.n}x{point.k}" if point.m else ""
        threads = f", {units.counted(point.threads, 'thread')}" if point.threads else ""
        unit = units.format_count(point.work) + (" FLOP" if point.kind in PRODUCTS else " B")
        key = f"efficiency.{point.kind}.{point.dtype}"
        yield key, f"{point.utilisation:.3g} at {unit}{shape}{threads}", _source_of(key, sources)


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_UNSOURCED = (
    "name",
    "kind",
    "vendor",
    "match",
    "notes",
    "provenance",
    "device",
    "stack",
    "family",
    "version",
    "mode",
    "fitted_on",
)
"""Keys that state no figure."""


def _source_of(key: str, sources: Mapping[str, str]) -> str:
    if key in _UNSOURCED or key.startswith("spread."):
        return ""
    while key:
        if key in sources:
            return sources[key]
        key = key.rpartition(".")[0]
    return sources.get("default", "")
