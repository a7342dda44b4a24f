"""Open a database: SQLite with settings that keep every reported write, or whatever else the URL names."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from txlplan.errors import RecordError
from txlplan.records._table import LAYOUT, LAYOUT_VERSION, METADATA

_BUSY_TIMEOUT_S = 60
_ATTEMPTS = 10


def open_engine(url: str) -> Engine:
    """Connect, create the tables where they are missing, and check their layout. Raises RecordError.

    A connection is opened for each operation and closed after it: nothing to share wrongly over threads or forks.
    """
    parsed = _parsed(url)
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        _make_directory(Path(parsed.database).expanduser())
    try:
        engine = create_engine(parsed, poolclass=NullPool, json_serializer=partial(json.dumps, allow_nan=False))
    except NoSuchModuleError:
        raise RecordError(
            f"record store {shown}: unknown kind of database {parsed.drivername!r}",
            hint="a file path, sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE",
        ) from None
    except ModuleNotFoundError as error:
        raise RecordError(
            f"record store {shown}: its driver {error.name!r} is not installed", hint=f"pip install {error.name}"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    with translated(engine):
        _create_tables(engine)
        _check_layout(engine)
    return engine


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn the database's errors into RecordError that names the store (its password hidden)."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        shown = engine.url.render_as_string(hide_password=True)
        raise RecordError(f"record store {shown}: {reason}", hint=_hint(reason)) from error


def _hint(reason: str) -> str:
    if "not a database" in reason or "malformed" in reason:
        return "the file is damaged or something else: move it away, or set TXLPLAN_STORE to another path"
    if "locked" in reason:
        return "another program holds the store: wait for it, or set TXLPLAN_STORE to another path"
    return "check TXLPLAN_STORE, and that you may write there"


def _parsed(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise RecordError(
            "TXLPLAN_STORE is not a database URL",
            hint="a file path, sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE",
        ) from None


def _make_directory(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"record store {database}: its directory cannot be made: {error.strerror}", hint="set TXLPLAN_STORE to another path"
        ) from None


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """WAL: readers and a writer at once. FULL: a commit is on disk when it returns. Writers wait for each other."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _create_tables(engine: Engine) -> None:
    """Create what is missing. Other processes may be at it too, and then the loser looks again."""
    for attempt in range(_ATTEMPTS):
        try:
            METADATA.create_all(engine)
            with engine.begin() as connection:
                if connection.scalar(select(LAYOUT.c.version).limit(1)) is None:
                    connection.execute(insert(LAYOUT).values(version=LAYOUT_VERSION))
        except (IntegrityError, OperationalError, ProgrammingError):
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.05 * (attempt + 1))
        else:
            return


def _check_layout(engine: Engine) -> None:
    with engine.connect() as connection:
        version = connection.scalar(select(LAYOUT.c.version).order_by(LAYOUT.c.version.desc()))
    if version is None or version == LAYOUT_VERSION:
        return
    newer = version > LAYOUT_VERSION
    shown = engine.url.render_as_string(hide_password=True)
    raise RecordError(
        f"record store {shown}: layout {version} is too {'new' if newer else 'old'}: this txlplan reads {LAYOUT_VERSION}",
        hint="`pip install --upgrade txlplan`" if newer else "export it with the txlplan that wrote it, then import it here",
    )
