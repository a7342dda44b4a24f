"""A record as a plain JSON document, and back, with its schema version checked first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from txlplan.config import from_plain, to_plain
from txlplan.errors import ConfigError, RecordError
from txlplan.records._record import SCHEMA_VERSION, Record


def to_document(record: Record) -> dict[str, Any]:
    """Plain JSON values of a record: field names, SI numbers, None kept."""
    document: dict[str, Any] = to_plain(record)
    return document


def to_line(record: Record) -> str:
    """The document as one line of JSON. Raises RecordError on NaN or infinity, which JSON does not have."""
    try:
        return json.dumps(to_document(record), allow_nan=False)
    except ValueError:
        raise RecordError(
            f"record {record.id} holds a number that is not finite", hint="an unknown value is None, never NaN or infinity"
        ) from None


def from_document(raw: Any, where: str) -> Record:
    """The record of a document; `where` names its place in errors. Raises RecordError."""
    if not isinstance(raw, Mapping):
        raise RecordError(f"{where}: not a record: a JSON object was expected, not {type(raw).__name__}")
    _check_version(raw, where)
    try:
        return from_plain(Record, raw, where)
    except ConfigError as error:
        raise RecordError(error.message, hint=error.hint) from None


def from_line(line: str, where: str) -> Record:
    """The record of one line of JSON. Raises RecordError."""
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from None
    return from_document(raw, where)


def _check_version(raw: Mapping[str, Any], where: str) -> None:
    if "schema_version" not in raw:
        raise RecordError(
            f"{where}: schema_version is missing: this is no record of txlplan",
            hint="records come from `txlplan records export`; docs/reference/records.md specifies them",
        )
    version = raw["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError(f"{where}: schema_version is {version!r}, not a whole number")
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{where}: schema_version {version} is too new: this txlplan reads {SCHEMA_VERSION}",
            hint="a newer txlplan wrote it: `pip install --upgrade txlplan`",
        )
    if version < SCHEMA_VERSION:
        raise RecordError(
            f"{where}: schema_version {version} is too old: this txlplan reads {SCHEMA_VERSION}",
            hint="run it again, or read it with the txlplan that wrote it",
        )
