"""Write frozen dataclasses as TOML text or as plain JSON values."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any

from txlplan.config._schema import toml_key
from txlplan.units import Quantity


def to_plain(value: Any) -> Any:
    """Plain JSON values of a dataclass: field names, SI numbers, tuples as lists, None kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def to_toml(value: Any) -> str:
    """TOML text of a dataclass: keys without unit suffixes, quantities as text with units.

    None and empty are left out, so a field that may be None has None for its default.
    """
    import tomli_w

    return tomli_w.dumps(_tables(value, type(value)))


def _tables(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {toml_key(name): _tables(item, hints[name]) for name, item in items if item is not None and item not in ((), {})}
    quantity = _quantity(hint)
    if isinstance(value, Mapping):
        inner = _last_argument(hint)
        return {str(key): _tables(item, inner) for key, item in value.items()}
    if isinstance(value, tuple | list):
        inner = typing.get_args(_without_none(hint))[0] if typing.get_args(_without_none(hint)) else None
        return [_tables(item, inner) for item in value]
    return quantity.exact(value) if quantity and not quantity.bare_allowed else value


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return next(argument for argument in typing.get_args(hint) if argument is not type(None))
    return hint


def _last_argument(hint: Any) -> Any:
    arguments = typing.get_args(_without_none(hint))
    return arguments[-1] if arguments else None


def _quantity(hint: Any) -> Quantity | None:
    hint = _without_none(hint)
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Quantity)), None)
