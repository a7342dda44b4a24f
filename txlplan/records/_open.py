"""Where the store is, and opening it. SQLAlchemy loads here and not before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from txlplan import resources

if TYPE_CHECKING:
    from txlplan.records._store import Store

STORE_VARIABLE = "TXLPLAN_STORE"


def open_store(url: str | None = None) -> Store:
    """Open (and create where it is missing) the record store. Raises RecordError.

    `url` is a path of a SQLite file or a database URL; None: `TXLPLAN_STORE`, else `records.db` in the user's data directory.
    """
    from txlplan.records._store import Store

    return Store(url or os.environ.get(STORE_VARIABLE) or str(resources.user_data() / "records.db"))
