"""The record store: one database, several writers at once, nothing lost that was reported as saved."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from txlplan.choices import Outcome, RecordKind, Task
from txlplan.errors import RecordError
from txlplan.records._document import from_document
from txlplan.records._engine import open_engine, translated
from txlplan.records._identity import now
from txlplan.records._record import Record
from txlplan.records._table import RECORDS, row_of

Records = list[Record]
_SHOWN = 5
_CLOCK_SLACK_S = 2.0


class Store:
    """Records in a database. Every method is one transaction; a write is on disk when its method returns."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)

    @property
    def url(self) -> str:
        """Where the store is, its password hidden."""
        return self._engine.url.render_as_string(hide_password=True)

    def put(self, record: Record) -> None:
        """Insert a record, or replace the one with its id."""
        self.put_all((record,))

    def put_all(self, records: Iterable[Record]) -> None:
        """Insert or replace several records: all of them, or none where one cannot be written."""
        rows = [row_of(record) for record in records]
        with translated(self._engine):
            _write(self._engine, rows)

    def get(self, id_or_prefix: str) -> Record:
        """The record with this id, or the only one whose id begins so. Raises RecordError for none and for several."""
        beginning = RECORDS.c.id.startswith(id_or_prefix, autoescape=True)
        query = select(RECORDS.c.id, RECORDS.c.document).where(beginning).order_by(RECORDS.c.id).limit(_SHOWN + 1)
        with translated(self._engine), self._engine.connect() as connection:
            found = {name: document for name, document in connection.execute(query)}  # noqa: C416  (rows are no pairs to mypy)
        if id_or_prefix in found:
            return from_document(found[id_or_prefix], f"record {id_or_prefix}")
        if not id_or_prefix or not found:
            raise RecordError(f"no record {id_or_prefix!r} in {self.url}", hint="`txlplan records list` shows their ids")
        if len(found) > 1:
            names = ", ".join(list(found)[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
            raise RecordError(f"{id_or_prefix!r} begins the ids of several records: {names}", hint="give more of the id")
        ((name, document),) = found.items()
        return from_document(document, f"record {name}")

    def list(
        self,
        *,
        kind: RecordKind | None = None,
        outcome: Outcome | None = None,
        parent: str | None = None,
        task: Task | None = None,
        model: str | None = None,
        device: str | None = None,
        limit: int | None = None,
    ) -> Records:
        """Records that match all that is given, newest first. Raises RecordError for one that cannot be read."""
        wanted = {"kind": kind, "outcome": outcome, "parent": parent, "task": task, "model": model, "device": device}
        conditions = [RECORDS.c[name] == value for name, value in wanted.items() if value is not None]
        newest_first = (RECORDS.c.created_at.desc(), RECORDS.c.id.desc())
        query = select(RECORDS.c.id, RECORDS.c.document).where(*conditions).order_by(*newest_first).limit(limit)
        with translated(self._engine), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [from_document(document, f"record {name}") for name, document in rows]

    def groups(self) -> set[str]:
        """The `group` of every record."""
        group = case((RECORDS.c.kind == "run", RECORDS.c.id), else_=func.coalesce(RECORDS.c.parent, RECORDS.c.id))
        with translated(self._engine), self._engine.connect() as connection:
            return set(connection.scalars(select(group).distinct()))

    def close_interrupted(self) -> Records:
        """Mark as failed ("interrupted") every running record of this host whose process is gone; give them back."""
        gone = [record for record in self.list(outcome="running") if _interrupted(record)]
        closed = []
        for record in gone:
            failed = dataclasses.replace(record, outcome="failed", message="interrupted", finished_at=now())
            still_running = (RECORDS.c.id == record.id) & (RECORDS.c.outcome == "running")
            with translated(self._engine), self._engine.begin() as connection:
                if connection.execute(update(RECORDS).where(still_running).values(row_of(failed))).rowcount:
                    closed.append(failed)
        return closed


def _write(engine: Engine, rows: list[dict[str, Any]]) -> None:
    try:
        with engine.begin() as connection:
            _upsert(connection, rows)
    except IntegrityError:  # (another writer inserted the same id between our update and our insert)
        with engine.begin() as connection:
            _upsert(connection, rows)


def _upsert(connection: Connection, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        if connection.execute(update(RECORDS).where(RECORDS.c.id == row["id"]).values(row)).rowcount == 0:
            connection.execute(insert(RECORDS).values(row))


def _interrupted(record: Record) -> bool:
    """The supervising process was on this host and is no more; a later process with its number is another one."""
    import psutil

    if record.process_id is None or record.environment.hostname != socket.gethostname():
        return False
    try:
        started_s = psutil.Process(record.process_id).create_time()
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    return started_s > datetime.fromisoformat(record.created_at).timestamp() + _CLOCK_SLACK_S
