"""Parse TOML text or plain values into frozen dataclasses, strictly."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from txlplan.config._schema import toml_key
from txlplan.errors import ConfigError

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The raw tables of a TOML file. Raises ConfigError that names the file (and the line, where it does not parse)."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="check the path, or name a shipped profile instead") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory, not a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_toml(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """Build a `cls` from the raw tables of a TOML file; `where` names the file in errors."""
    return _validate(cls, raw, where, si=False)


def from_plain(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """Build a `cls` from plain values (field names, SI numbers), as `to_plain` wrote them."""
    return _validate(cls, raw, where, si=True)


@functools.cache
def _adapter(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _validate(cls: type[T], raw: Mapping[str, Any], where: str, *, si: bool) -> T:
    from pydantic import ValidationError

    adapter: Any = _adapter
    try:
        value: T = adapter(cls).validate_python(dict(raw), by_alias=not si, by_name=si, context={"si": si})
    except ValidationError as error:
        problems = [_problem(cls, problem, si=si) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{where}: {text}" for text, _ in problems), hint=_first_hint(problems)) from None
    return value


def _first_hint(problems: list[tuple[str, str | None]]) -> str | None:
    return next((hint for _, hint in problems if hint), None)


def _problem(cls: type[Any], problem: Mapping[str, Any], *, si: bool) -> tuple[str, str | None]:
    """What is wrong, with its dotted key, and what to do about it."""
    location = [str(part) for part in problem["loc"] if not _is_type_tag(str(part))]
    dotted = ".".join(location)
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        valid = _keys_at(cls, location[:-1], si=si)
        nearest = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"valid keys here: {', '.join(valid)}"
        return f"unknown key {dotted!r}", hint
    if problem["type"] == "missing":
        return f"missing key {dotted!r}", None
    if problem["type"] == "literal_error":
        return _not_one_of(dotted, problem["input"], re.findall("'([^']*)'", problem["ctx"]["expected"]))
    if problem["type"] in ("tuple_type", "list_type"):
        value = problem["input"]
        return f"{dotted} = {value!r} must be a list", f"write it {location[-1]} = [{_as_toml(value)}]" if location else None
    message = str(problem["msg"]).removeprefix("Value error, ")
    return (f"{dotted}: {message}" if dotted else message), None


def _not_one_of(dotted: str, value: Any, known: list[str]) -> tuple[str, str]:
    nearest = difflib.get_close_matches(str(value), known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return f"{dotted}: {value!r} is not known", hint


def _as_toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _is_type_tag(part: str) -> bool:
    """Pydantic puts union branches into locations (`function-before[...]`, `int`): they are no keys."""
    return "[" in part or part in ("int", "float", "str", "bool", "none", "tuple", "list", "dict")


def _keys_at(cls: Any, location: list[str], *, si: bool) -> list[str]:
    """The keys that are valid in the table that `location` leads to."""
    for part in location:
        if part.isdigit():
            continue
        fields = _dataclass_fields(cls)
        cls = next((hint for name, hint in fields.items() if part in (name, toml_key(name))), None)
    return [name if si else toml_key(name) for name in _dataclass_fields(cls)]


def _dataclass_fields(hint: Any) -> dict[str, Any]:
    """Fields and type hints of the dataclass inside `hint` (through Optional, tuple and Mapping)."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return {field.name: hints[field.name] for field in dataclasses.fields(hint)}
    if typing.get_origin(hint) in (typing.Union, UnionType, tuple, list, dict, Mapping) or hasattr(hint, "__args__"):
        for argument in typing.get_args(hint):
            if found := _dataclass_fields(argument):
                return found
    return {}
