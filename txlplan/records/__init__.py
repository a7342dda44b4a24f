"""What runs did take: one self-contained record a run, kept in a store, carried in JSON Lines or CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txlplan.records._csv import csv_text, export_csv, flat, import_csv
from txlplan.records._document import from_document, to_document
from txlplan.records._environment import environment
from txlplan.records._identity import new_id, now
from txlplan.records._jsonl import export_jsonl, import_jsonl
from txlplan.records._open import STORE_VARIABLE, open_store
from txlplan.records._record import SCHEMA_VERSION, Environment, LossPoint, Record

if TYPE_CHECKING:
    from txlplan.records._store import Store

__all__ = [
    "SCHEMA_VERSION",
    "STORE_VARIABLE",
    "Environment",
    "LossPoint",
    "Record",
    "Store",
    "csv_text",
    "environment",
    "export_csv",
    "export_jsonl",
    "flat",
    "from_document",
    "import_csv",
    "import_jsonl",
    "new_id",
    "now",
    "open_store",
    "to_document",
]


def __getattr__(name: str) -> Any:
    """`Store` on demand: its module imports SQLAlchemy, which nobody needs before a store is opened."""
    if name == "Store":
        from txlplan.records._store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
