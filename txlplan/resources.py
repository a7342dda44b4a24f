"""Where txlplan's data lies: what is shipped with it, and the user's own that comes before it.

`shipped(kind)` alone knows where profiles/, runners/ and reports/ lie: in `txlplan/_data` in a wheel, beside the
package in a checkout. The user's own profiles and runners are looked up first, in this order: the command-line option,
`TXLPLAN_PROFILES` (a path list), the user's config directory. Never the current directory.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["profiles", "runners", "reports"]
_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: Kind) -> Path:
    """The directory of the shipped `profiles`, `runners` or `reports`."""
    bundled = _PACKAGE / "_data" / kind
    return bundled if bundled.is_dir() else _PACKAGE.parent / kind


def user_config() -> Path:
    """The user's configuration directory (`profiles/` and `runners/` under it hold their own)."""
    import platformdirs

    return Path(platformdirs.user_config_dir("txlplan", appauthor=False))


def user_data() -> Path:
    """The user's data directory: the record store, run directories and prepared data live here by default."""
    import platformdirs

    return Path(platformdirs.user_data_dir("txlplan", appauthor=False))


def user_cache() -> Path:
    """The user's cache directory: what may be deleted, and is then made again."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("txlplan", appauthor=False))


def cpp_compiler() -> str | None:
    """What torch compiles C++ with, our own code too: what CXX names, or the system's usual one. None: it is not there."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


def user(kind: Kind) -> Path:
    """Where the user's own profiles, runners or report templates are written and looked up."""
    return user_config() / kind


def search_path(kind: Kind, first: Path | None = None) -> tuple[Path, ...]:
    """Directories to look in, the most specific first: `first`, `TXLPLAN_<KIND>`, the user's, the shipped."""
    return tuple(([first] if first else []) + _listed(_variable(kind)) + [user(kind), shipped(kind)])


def missing() -> list[tuple[str, Path]]:
    """What `TXLPLAN_PROFILES`, `TXLPLAN_RUNNERS` and `TXLPLAN_REPORTS` name and is no directory: (variable, path)."""
    variables = [_variable(kind) for kind in get_args(Kind)]
    return [(name, path) for name in variables for path in _listed(name) if not path.is_dir()]


def _variable(kind: Kind) -> str:
    return f"TXLPLAN_{kind.upper()}"


def _listed(variable: str) -> list[Path]:
    return [Path(part).expanduser() for part in os.environ.get(variable, "").split(os.pathsep) if part]
