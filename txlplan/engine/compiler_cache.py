"""Where torch keeps what it compiles."""

from __future__ import annotations

import os
from contextlib import suppress

from txlplan import resources


def keep_compiled_code() -> None:
    """Have torch keep compiled code in the user's cache directory: the next run on this machine need not wait for it.

    Before torch's compiler is imported, by whatever needs it, which chooses a directory then. Where none can be made, or the
    user has no home, torch takes a temporary one.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    with suppress(OSError, RuntimeError):
        directory = resources.user_cache() / "compiled"
        directory.mkdir(parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory)
