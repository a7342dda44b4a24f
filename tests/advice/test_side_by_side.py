"""Work in forked processes: the answers of one after the other, in order, and the first failure."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys

import pytest

from txlplan import advice
from txlplan.advice import _compare


def test_a_comparison_in_processes_is_the_one_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`side_by_side` forks where torch is not loaded; the tests around it may have loaded it."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    def asked() -> str:
        found = advice.compare(
            model="demo-bytes", tokens=1e8, on=["p3.2xlarge", "1..4xp3.16xlarge"], today=datetime.date(2026, 11, 24)
        )
        return repr(found.to_dict())

    alone = asked()
    monkeypatch.setattr(_compare, "_MANY_SIZES", 0)
    assert asked() == alone


SCRIPT = """
import os
from txlplan.advice._side_by_side import side_by_side
from txlplan.errors import InputError

def work(number):
    if number == 7:
        raise InputError("seven is wrong", hint="take eight")
    return number, os.getpid()

found = side_by_side(work, range(6))
assert [number for number, _ in found] == list(range(6))
assert os.getpid() not in {process for _, process in found} or len(os.sched_getaffinity(0)) == 1
try:
    side_by_side(work, range(5, 9))
except InputError as error:
    print(error.message, error.hint)
"""


def test_order_processes_and_errors() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=os.environ, capture_output=True, text=True, check=False)
    assert done.stdout == "seven is wrong take eight\n", done.stderr
