"""Instructions for bf16 that are used are those that a CPU has and oneDNN may go up to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from txlplan.nn._instructions import is_told_without_bf16, may_use_bf16, may_use_tiles
from txlplan.nn._own_code import can_compile


@pytest.mark.parametrize(
    ("amx", "limit", "expected"),
    [
        (True, "", True),
        (True, "AVX512_CORE_AMX", True),
        (True, "all", True),
        (True, "avx512_core_bf16", False),
        (False, "", False),
    ],
    ids=["with AMX", "told what it has", "told to use all", "told to do without", "without"],
)
def test_tiles_are_for_cpus_that_may_use_them(amx: bool, limit: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By either name that oneDNN heeds."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.setenv(name, limit)
        assert may_use_tiles() is expected
        monkeypatch.delenv(name)


def test_an_empty_limit_is_none_and_the_older_name_counts_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """As oneDNN reads them."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert is_told_without_bf16()


@pytest.mark.parametrize(
    ("bf16", "limit", "expected"),
    [
        (True, "", True),
        (True, "AVX512_CORE_BF16", True),
        (True, "avx512_core", False),
        (True, "AVX2_VNNI_2", False),
        (False, "", False),
    ],
    ids=["with units", "told what it has", "told to do without", "told to do with AVX2's", "without"],
)
def test_registers_multiply_bf16_where_they_may(
    bf16: bool, limit: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert may_use_bf16() is expected


@pytest.mark.skipif(not can_compile("attention_bf16"), reason="needs a CPU that multiplies bf16, and a C++ compiler")
@pytest.mark.parametrize("limit", ["ALL", "AVX512_CORE_BF16"])
def test_attention_is_compiled_without_tiles_where_they_are_not_to_be_used(limit: str) -> None:
    """In a process of its own, as what is compiled is chosen once."""
    said = "from txlplan.nn._own_code import library; print(library('attention_bf16').uses_tiles())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": limit}
    found = subprocess.run([sys.executable, "-c", said], env=environment, check=True, capture_output=True, text=True)
    assert int(found.stdout) == (limit == "ALL" and torch.cpu._is_amx_tile_supported())
