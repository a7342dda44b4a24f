"""Named TOML profiles over a search path: the user's own hide the shipped ones of the same id."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from txlplan import resources
from txlplan.config._load import parse_toml, read_toml
from txlplan.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Catalog(Generic[T]):
    """All profiles of one kind (`directory` under profiles/), each a file `<id>.toml` parsed into `cls`.

    `extends = "other-id"` in a file takes every key that the file does not set from the other profile.
    """

    directory: str
    cls: type[T]
    noun: str

    def paths(self) -> dict[str, Path]:
        """Id → file, sorted by id; an earlier directory of the search path hides a later one."""
        found: dict[str, Path] = {}
        for root in reversed(resources.search_path("profiles")):
            found |= {path.stem: path for path in sorted((root / self.directory).glob("*.toml"))}
        return dict(sorted(found.items()))

    def get(self, name: str) -> T:
        """The profile with this id, or of this file when `name` ends in `.toml`.

        Raises ConfigError for an unknown id (with the nearest ones) and for anything wrong in the file.
        """
        path = self.path(name)
        return parse_toml(self.cls, {"id": path.stem, **self._raw(path, ())}, str(path))

    def variant(self, name: str, changes: Mapping[str, Any], *, id: str) -> T:  # noqa: A002
        """The profile `name` with `changes` (TOML keys, dotted for inner tables) over its file, under another id.

        Raises ConfigError as `get` does, for an unknown key with the nearest valid one.
        """
        nested: dict[str, Any] = {}
        for dotted, value in changes.items():
            *tables, key = dotted.split(".")
            inner = nested
            for table in tables:
                inner = inner.setdefault(table, {})
            inner[key] = value
        return parse_toml(self.cls, {**_merged(self._raw(self.path(name), ()), nested), "id": id}, id)

    def all(self) -> list[T]:
        """Every profile, by id."""
        return [self.get(name) for name in self.paths()]

    def path(self, name: str) -> Path:
        """The file of a profile."""
        if name.endswith(".toml"):
            return Path(name).expanduser()
        paths = self.paths()
        if name not in paths:
            nearest = difflib.get_close_matches(name, paths, n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(nearest)}" if nearest else f"known: {', '.join(paths)}"
            raise ConfigError(f"unknown {self.noun} {name!r}", hint=hint)
        return paths[name]

    def _raw(self, path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
        if path in seen:
            raise ConfigError(f"{path}: 'extends' goes round in a circle: {' → '.join(p.stem for p in (*seen, path))}")
        raw = read_toml(path)
        base = raw.pop("extends", None)
        if base is None:
            return raw
        return _merged(self._raw(self._base_path(str(base), path), (*seen, path)), raw)

    def _base_path(self, base: str, path: Path) -> Path:
        shipped = resources.shipped("profiles") / self.directory / f"{base}.toml"
        return shipped if base == path.stem else self.path(base)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    merged.pop("id", None)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both_tables else value
    return merged
