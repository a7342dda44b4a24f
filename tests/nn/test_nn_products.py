"""Products laid out for few rows against torch's own."""

from __future__ import annotations

import pytest
import torch

from txlplan.nn import _products
from txlplan.nn._products import BlockedProduct, PackedProduct, PlainProduct, WidenedProduct, product

torch.set_num_threads(1)
needs_units = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN packs bf16 only where the CPU has units for it"
)


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), pytest.param(torch.bfloat16, 1e-2, marks=needs_units)], ids=["fp32", "bf16"]
)
def test_a_packed_product_is_the_plain_one(dtype: torch.dtype, tolerance: float, biased: bool, activation: str) -> None:
    torch.manual_seed(1)
    weight, bias, x = torch.randn(48, 32, dtype=dtype), torch.randn(48, dtype=dtype), torch.randn(3, 32)
    given = bias if biased else None
    found = PackedProduct(weight, given, rows=3, activation=activation)(x)
    exact = PlainProduct(weight.double(), None if given is None else given.double(), activation=activation)(x.to(dtype))
    assert found.dtype == dtype
    assert (found - exact).norm() <= tolerance * exact.norm()


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_a_bf16_product_is_right_however_it_is_laid_out(activation: str) -> None:
    """Packed where the CPU has units for bf16, else plain: either way within the rounding of bf16."""
    torch.manual_seed(1)
    weight, bias, x = torch.randn(48, 32).bfloat16(), torch.randn(48).bfloat16(), torch.randn(2, 32)
    found = product(weight, bias, rows=2, activation=activation)(x)
    exact = PlainProduct(weight.double(), bias.double(), activation=activation)(x.bfloat16())
    assert (found - exact).norm() <= 1e-2 * exact.norm()


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize(("rows", "inputs"), [(3, 512), (4, 512), (16, 512), (17, 512), (8, 511)])
def test_large_weights_of_few_rows_are_packed_in_fp32_where_that_was_measured(
    rows: int, inputs: int, wide: bool, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_products, "has_fast_bf16", lambda: units)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: wide)
    made = product(torch.zeros(1024, inputs), rows=rows)
    assert isinstance(made, PackedProduct) is (units and wide and rows in (4, 16) and inputs == 512)


def test_blocks_of_outputs_that_do_not_divide_are_padded() -> None:
    torch.manual_seed(1)
    weight, bias, x = torch.randn(47, 32), torch.randn(47), torch.randn(2, 32)
    found = BlockedProduct(weight, bias, activation="relu", blocks=2)(x)
    torch.testing.assert_close(found, PlainProduct(weight, bias, activation="relu")(x))


@pytest.mark.parametrize("rows", [9, 17, None])
@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_to_be_compiled_is_never_packed(
    dtype: torch.dtype, units: bool, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_products, "has_fast_bf16", lambda: units)
    made = product(torch.randn(4, 4, dtype=dtype), rows=rows, compiled=True)
    assert not isinstance(made, PackedProduct)
    slow = dtype == torch.bfloat16 and not units and rows is not None
    assert isinstance(made, WidenedProduct) is slow


def test_a_product_for_compiled_code_widens_the_weight() -> None:
    torch.manual_seed(1)
    weight, bias, x = (torch.randn(*shape).bfloat16() for shape in ((48, 32), (48,), (9, 32)))
    found = WidenedProduct(weight, bias, activation="relu")(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, PlainProduct(weight.float(), bias.float(), activation="relu")(x))
