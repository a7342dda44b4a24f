"""Ids of records: sortable by time, unique without asking anyone."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime


def new_id() -> str:
    """`<UTC time to the microsecond>-<6 random hex digits>`: as text, ids sort by the time they were made."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def now() -> str:
    """This moment as records write it: ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
