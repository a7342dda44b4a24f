"""`python -m txlplan`, and the entry point of the `txlplan` command."""

from __future__ import annotations

import os
import signal
from typing import Any


def _interrupted(*_: Any) -> None:
    os.write(
        2, b"error: txlplan was interrupted before it was done\nhint: nothing had started; the same command starts again\n"
    )
    os._exit(130)


def main() -> None:
    """Run the command line; Ctrl-C says so in words from the first import on."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # (else whoever started it wants interrupts ignored)
        signal.signal(signal.SIGINT, _interrupted)
    from txlplan.cli import main as command_line

    signal.signal(signal.SIGINT, usual)
    command_line()


if __name__ == "__main__":
    main()
