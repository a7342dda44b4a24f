"""The one rule that turns field names into TOML keys, and the settings every parsed dataclass shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNIT_SUFFIXES = ("_bytes_per_s", "_flops_per_s", "_usd_per_h", "_usd_per_j", "_bytes", "_usd", "_hz", "_w", "_s")


def toml_key(field_name: str) -> str:
    """The TOML key of a field: its name less the unit suffix, since the value carries its unit."""
    for suffix in _UNIT_SUFFIXES:
        if field_name.endswith(suffix):
            return field_name.removesuffix(suffix)
    return field_name


STRICT: Mapping[str, Any] = {"extra": "forbid", "alias_generator": toml_key}
"""Set as `__pydantic_config__` on every dataclass that a file is parsed into."""
