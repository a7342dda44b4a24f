"""Run a function over many tasks on several cores, with progress in bytes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from txlplan.data._progress import Progress
from txlplan.errors import TxlplanError

Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int], None]

WORTH_A_POOL_BYTES = 4 << 20
_POLL_S = 0.1
_counter: Any = None


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable[[Task, Advance], Result], tasks: Sequence[Task], total_bytes: int, processes: int, progress: Progress
) -> Iterator[Result]:
    """Results of `function(task, advance)` in the order of `tasks`; in this process where a pool would not pay.

    `function` is a module's own (it is pickled) and calls `advance` with the bytes it has done.
    """
    processes = min(processes, len(tasks))
    if processes < 2 or total_bytes < WORTH_A_POOL_BYTES:
        for task in tasks:
            yield function(task, progress.advance)
        return
    # fork: a script that calls prepare needs no `__main__` guard, and workers start in milliseconds
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(processes, context, _start_worker, (counter, os.getpid())) as pool:
        futures = [pool.submit(_call, function, task) for task in tasks]
        try:
            yield from _in_order(futures, counter, progress)
        except BrokenProcessPool:
            raise TxlplanError(
                "a process that prepares data ended unexpectedly",
                hint="was it killed for want of memory? try fewer --processes",
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(futures: list[Future[Result]], counter: Any, progress: Progress) -> Iterator[Result]:
    told = 0
    for future in futures:
        finished = False
        while not finished:
            finished = bool(wait([future], timeout=_POLL_S).done)
            now = counter.value
            progress.advance(now - told)
            told = now
        yield future.result()


def _start_worker(counter: Any, parent: int) -> None:
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is parallel enough
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent leaves no worker that goes on writing."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _call(function: Callable[[Task, Advance], Result], task: Task) -> Result:
    return function(task, _advance)


def _advance(done_bytes: int) -> None:
    with _counter.get_lock():
        _counter.value += done_bytes
