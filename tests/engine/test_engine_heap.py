"""The heap as a pool, in processes of their own: page faults say whether the kernel was asked for memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_STEPS = """
import contextlib, resource, torch
from txlplan.engine import heap

def faults(mib=48, steps=20):
    '''Of a step that makes and frees two tensors, once the heap has grown to its size.'''
    for _ in range(steps):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        first = torch.ones(mib * 2**18)
        second = first + 1
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
_PAGES = 2 * 48 * 2**20 // 4096

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the heap is left as it is")


def printed(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _STEPS + program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_step_asks_the_kernel_for_no_memory_that_was_freed_before() -> None:
    kept, faults = printed("print(heap.keep_freed_memory(), faults())")
    assert kept == "True"
    assert int(faults) < 0.01 * _PAGES


def test_for_a_while_only() -> None:
    """What the heap kept meanwhile it has; larger blocks are the kernel's again."""
    program = "with heap.freed_memory_kept():\n    print(faults())\nprint(faults(480, 3))\nprint(faults(8))"
    within, after, small = map(int, printed(program))
    assert max(within, small) < 0.01 * _PAGES
    assert after > 9 * _PAGES


def flags(program: str) -> set[str]:
    """What the kernel was told of the heap (proc(5), smaps), after a program."""
    heap, printing = r"\[heap\]$.*?^VmFlags: (.*?)$", "\nprint(open('/proc/self/smaps').read())"
    smaps = subprocess.check_output([sys.executable, "-c", _STEPS + program + printing], text=True)
    return set(" ".join(re.findall(heap, smaps, re.MULTILINE | re.DOTALL)).split())


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages")
def test_huge_pages_are_asked_for() -> None:
    assert "hg" in flags("heap.keep_freed_memory()")
    assert "hg" not in flags("")


@pytest.mark.parametrize("limit", ["AS", "DATA"])
def test_not_where_addresses_are_limited(limit: str) -> None:
    """However many they may be: threads and mappings need some too."""
    limited = f"resource.setrlimit(resource.RLIMIT_{limit}, (2**46, 2**46)); assert heap.keep_freed_memory()"
    assert "hg" not in flags(limited)
