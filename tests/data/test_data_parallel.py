from __future__ import annotations

import os
import time

import pytest

from txlplan.data import Progress
from txlplan.data._parallel import WORTH_A_POOL_BYTES, Advance, core_count, run
from txlplan.errors import DataError, TxlplanError


class Counted(Progress):
    done = 0

    def advance(self, done_bytes: int) -> None:
        self.done += done_bytes


def _square(task: int, advance: Advance) -> tuple[int, int]:
    time.sleep(0.02 * (4 - task))
    advance(task)
    return task * task, os.getpid()


def _die(_task: int, _advance: Advance) -> None:
    os._exit(3)


def _refuse(task: int, _advance: Advance) -> None:
    raise DataError(f"task {task} is wrong", hint="mend it")


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_tasks_with_all_progress(processes: int) -> None:
    counted = Counted()
    results = list(run(_square, [0, 1, 2, 3, 4], WORTH_A_POOL_BYTES, processes, counted))
    assert [square for square, _ in results] == [0, 1, 4, 9, 16]
    assert counted.done == 10
    assert ({pid for _, pid in results} == {os.getpid()}) == (processes == 1)


def test_little_work_stays_in_this_process() -> None:
    results = run(_square, [3, 4], WORTH_A_POOL_BYTES - 1, 2, Progress())
    assert {pid for _, pid in results} == {os.getpid()}


def test_a_worker_that_dies_is_an_error_with_a_hint() -> None:
    with pytest.raises(TxlplanError, match="ended unexpectedly") as caught:
        list(run(_die, [1, 2], WORTH_A_POOL_BYTES, 2, Progress()))
    assert "--processes" in str(caught.value.hint)


def test_an_error_in_a_worker_arrives_whole() -> None:
    with pytest.raises(DataError, match="task 1 is wrong") as caught:
        list(run(_refuse, [1, 2], WORTH_A_POOL_BYTES, 2, Progress()))
    assert caught.value.exit_code == 2


def test_some_core_may_be_used() -> None:
    assert 1 <= core_count() <= (os.cpu_count() or 1)
