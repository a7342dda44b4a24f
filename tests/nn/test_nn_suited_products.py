"""What takes over torch's products on a CPU, and that it is taken back."""

from __future__ import annotations

import pytest
import torch

from txlplan.nn import _suited_products
from txlplan.nn._product_code import has_tiles
from txlplan.nn._suited_products import suit_products
from txlplan.nn._widened import has_fast_bf16

_OPERATIONS = [f"aten::{name}{overload}" for name in ("mm", "bmm", "addmm", "baddbmm") for overload in ("", ".out")]


def _kernels() -> list[str]:
    """What torch calls on a CPU, as it tells it."""
    lines = "\n".join(torch._C._dispatch_dump(name) for name in _OPERATIONS).splitlines()
    return [line for line in lines if line.startswith("CPU")]


def test_what_is_set_up_is_taken_back() -> None:
    """Where torch is fast in bf16 and there are no tiles, nothing is set up."""
    own = _kernels()
    try:
        suit_products(bf16=True)
        during = _kernels()
        suit_products(bf16=True)
        assert _kernels() == during, "once is enough"
    finally:
        suit_products(bf16=False)
    assert (during == own) is (has_fast_bf16() and not has_tiles())
    assert _kernels() == own


@pytest.mark.parametrize(("fast", "tiles", "name"), [(True, True, "tiles"), (False, False, "widened"), (True, False, None)])
def test_each_cpu_has_its_products(fast: bool, tiles: bool, name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {each: torch.library.Library("txlplan_tests", "FRAGMENT") for each in ("tiles", "widened")}
    monkeypatch.setattr(_suited_products, "has_fast_bf16", lambda: fast)
    monkeypatch.setattr(_suited_products, "tile_products", lambda: made["tiles"] if tiles else None)
    monkeypatch.setattr(_suited_products, "widened_products", lambda: made["widened"])
    try:
        suit_products(bf16=True)
        assert _suited_products._in_force == ([made[name]] if name else [])
    finally:
        suit_products(bf16=False)
    assert not _suited_products._in_force
