"""Where something is written that is to be whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from txlplan.engine.checkpoint_state import flush_directory
from txlplan.errors import InputError


@contextmanager
def new_directory(output: Path) -> Iterator[Path]:
    """Give a hidden directory beside `output`; when the block ends well, rename it to `output`, else remove it.

    Raises InputError where `output` is there already and is no empty directory, or where it cannot be written.
    """
    require_free(output)
    partial = output.with_name(f".{output.name}.{uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        flush_directory(partial)
        partial.rename(output)
        flush_directory(output.absolute().parent)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{error.filename or output}: {reason}", hint="is there space, and may you write?") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_free(output: Path) -> None:
    """Raise InputError where something is in the way."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise InputError(f"{output} is there already", hint="name another --output, or remove it")
