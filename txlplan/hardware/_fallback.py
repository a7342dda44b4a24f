"""A stack for a version that has no profile: the nearest of its family."""

from __future__ import annotations

import re
from dataclasses import replace

from txlplan.errors import ConfigError
from txlplan.hardware._catalogs import stacks
from txlplan.hardware._stack import StackProfile

_VERSION = re.compile(r"([a-z]*)(\d+)(?:\.(\d+))?")
_MODES = ("eager", "torchscript", "compiled")


def nearest_stack(name: str) -> StackProfile:
    """The stack `<family>-<version>[-<mode>]`, or the one of its family and mode whose version is nearest.

    Another mode, or another scheme of versions, is taken only where its own has none. The profile then says what it
    stands in for. Raises ConfigError for a family of which nothing is known.
    """
    known = stacks.paths()
    if name in known:
        return stacks.get(name)
    family, _, version = name.partition("-")
    relatives = [other for other in known if other.partition("-")[0] == family]
    if not relatives or not version:
        raise ConfigError(f"unknown stack {name!r}", hint=f"known: {', '.join(known)}")
    nearest = min(relatives, key=lambda other: _distance(version, other.partition("-")[2]))
    return replace(stacks.get(nearest), stands_in_for=name)


def _distance(wanted: str, found: str) -> tuple[bool, bool, float]:
    """How far two versions are apart: in mode, in scheme, in number."""
    scheme, number = _numbered(wanted)
    other_scheme, other_number = _numbered(found)
    return _mode(wanted) != _mode(found), scheme != other_scheme, abs(number - other_number)


def _numbered(version: str) -> tuple[str, float]:
    match = _VERSION.search(version)
    return (match[1], 100.0 * int(match[2]) + int(match[3] or 0)) if match else ("", 0.0)


def _mode(version: str) -> str:
    last = version.rpartition("-")[2]
    return last if last in _MODES else "eager"
