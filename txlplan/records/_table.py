"""The store's tables: columns to filter by, and the whole record as a JSON document beside them."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Float, Integer, MetaData, String, Table

from txlplan.records._document import to_line
from txlplan.records._record import Record

LAYOUT_VERSION = 1
"""Of the tables, not of the documents in them: raised when a column comes or goes."""

METADATA = MetaData()

LAYOUT = Table("txlplan_layout", METADATA, Column("version", Integer, primary_key=True, autoincrement=False))

RECORDS = Table(
    "txlplan_records",
    METADATA,
    Column("id", String, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("kind", String, nullable=False, index=True),
    Column("parent", String, index=True),
    Column("created_at", String, nullable=False, index=True),
    Column("finished_at", String),
    Column("outcome", String, nullable=False, index=True),
    Column("task", String, nullable=False),
    Column("model", String, nullable=False, index=True),
    Column("device", String, nullable=False, index=True),
    Column("n_devices", Integer, nullable=False),
    Column("system", String, nullable=False),
    Column("stack", String, nullable=False),
    Column("precision", String, nullable=False),
    Column("hostname", String, nullable=False),
    Column("tokens_per_s", Float(53)),
    Column("peak_memory_bytes", BigInteger),
    Column("document", JSON, nullable=False),  # (not JSONB: that refuses a NUL, which generated text may hold)
)


def row_of(record: Record) -> dict[str, Any]:
    """The values of one row of `RECORDS`. Raises RecordError on NaN or infinity."""
    return {
        "id": record.id,
        "schema_version": record.schema_version,
        "kind": record.kind,
        "parent": record.parent,
        "created_at": record.created_at,
        "finished_at": record.finished_at,
        "outcome": record.outcome,
        "task": record.workload.task,
        "model": record.workload.model.id,
        "device": record.device.id,
        "n_devices": record.n_devices,
        "system": record.system,
        "stack": record.stack,
        "precision": record.plan.precision,
        "hostname": record.environment.hostname,
        "tokens_per_s": record.tokens_per_s,
        "peak_memory_bytes": record.peak_memory_bytes,
        "document": json.loads(to_line(record)),
    }
