from __future__ import annotations

import pytest
import torch

from txlplan.engine import failures
from txlplan.errors import DataError


def raised(call):
    with pytest.raises(BaseException) as caught:
        call()
    return caught.value


def test_the_cpu_allocator_s_error_is_out_of_memory():
    assert failures.outcome(raised(lambda: torch.empty(2**60))) == "oom"
    assert failures.outcome(MemoryError()) == "oom"
    assert failures.outcome(torch.OutOfMemoryError("CUDA out of memory.")) == "oom"


def test_anything_else_failed_and_says_how_in_one_line():
    error = raised(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))
    assert failures.outcome(error) == "failed"
    assert failures.message(error).startswith("RuntimeError: ")
    assert "\n" not in failures.message(RuntimeError("one\ntwo"))
    assert failures.message(ValueError()) == "ValueError: "


def test_our_own_errors_speak_for_themselves():
    assert failures.message(DataError("x.tokens: truncated", hint="again")) == "x.tokens: truncated"
