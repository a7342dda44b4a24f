"""Independent pieces of pure work on all cores of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, in their order, in processes that are forked off this one.

    One after the other where there is one core, or one item, or where forking is not safe: beside torch's threads.
    """
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(items))
    if workers < 2 or "torch" in sys.modules or "fork" not in multiprocessing.get_all_start_methods():
        return [function(item) for item in items]
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=_leave_signals)
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_signals() -> None:
    """Ctrl-C reaches every process of a terminal; the first one answers it for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
