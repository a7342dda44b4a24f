"""What takes over torch's products on a CPU, and that it is taken back."""

from __future__ import annotations

import pytest
import torch

from txlplan.nn._product_code import has_tiles
from txlplan.nn._suited_products import leave_to_torch, suit_products
from txlplan.nn._wide_products import has_wide_products
from txlplan.nn._widened import has_fast_bf16

_OPERATIONS = [f"aten::{name}{overload}" for name in ("mm", "bmm", "addmm", "baddbmm") for overload in ("", ".out")]


def _kernels() -> list[str]:
    """What torch calls on a CPU, as it tells it."""
    lines = "\n".join(torch._C._dispatch_dump(name) for name in _OPERATIONS).splitlines()
    return [line for line in lines if line.startswith("CPU")]


@pytest.mark.parametrize("limit", ["", "AVX512_CORE_AMX", "AVX512_CORE_BF16", "AVX512_CORE"])
def test_what_is_set_up_is_what_the_cpu_may_use_and_is_taken_back(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is fast in bf16 and there are no tiles, nothing is."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    own = _kernels()
    try:
        suit_products(bf16=True)
        during = _kernels()
        suit_products(bf16=True)
        assert _kernels() == during, "once is enough"
    finally:
        leave_to_torch()
    large = [each for each in _OPERATIONS if each.startswith(("aten::mm", "aten::addmm"))]
    expected = _OPERATIONS if not has_fast_bf16() else large if has_tiles() else []
    assert sum("_overrides.py" in line for line in during) == len(expected)
    assert _kernels() == own


def test_wide_products_of_fp32_take_the_place_of_those_of_bf16() -> None:
    own = _kernels()
    try:
        suit_products(bf16=True)
        suit_products(bf16=False)
        during = _kernels()
        suit_products(bf16=False, few_rows=True)
        assert _kernels() == own, "tokens have none"
    finally:
        leave_to_torch()
    assert sum("_overrides.py" in line for line in during) == (2 if has_wide_products() else 0)
    assert _kernels() == own
