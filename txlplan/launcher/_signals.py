"""Ctrl-C and its kind, while a worker runs."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from txlplan.launcher._worker import Worker

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(kw_only=True, slots=True)
class Stops:
    """Signals that asked to stop."""

    count: int = 0


@contextlib.contextmanager
def forwarding(worker: Worker, stops: Stops) -> Iterator[None]:
    """Turn signals to the supervisor into a clean stop of the worker; the second one kills it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        stops.count += 1
        if stops.count == 1:
            worker.stop()
        else:
            worker.kill()

    previous = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
