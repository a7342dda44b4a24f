"""Widened products of bf16 against products of the same numbers in fp32 and float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.nn import _widened
from txlplan.nn._widened import has_bf16_units, suit_products

torch.set_num_threads(1)


@pytest.fixture
def widened() -> Iterator[None]:
    """As on a CPU without units for bf16, on any."""
    library = _widened._overriding()
    yield
    del library


def _near(found: Tensor, exact: Tensor) -> None:
    """bf16, and off by no more than its own rounding and that of sums in fp32."""
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5 * float(exact.norm()))


@pytest.mark.parametrize(
    "shape", [(1, 5, 3), (2, 3, 5), (7, 64, 3000), (3000, 64, 7), (64, 3000, 7), (0, 3, 4), (3, 0, 4), (3, 4, 0)], ids=str
)
def test_matrices_in_pieces_are_the_whole(widened: None, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, inner and columns; the limits are small so that pieces are several, and the last one shorter."""
    monkeypatch.setattr(_widened, "_PIECE_BYTES", 1 << 14)
    torch.manual_seed(1)
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner).bfloat16(), torch.randn(inner, columns).bfloat16()
    bias, matrix = torch.randn(columns).bfloat16(), torch.randn(rows, columns).bfloat16()
    exact = a.double() @ b.double()
    _near(torch.mm(a, b), exact)
    _near(torch.mm(a.t().contiguous().t(), b, out=torch.empty(rows, columns, dtype=torch.bfloat16)), exact)
    _near(torch.addmm(bias, a, b), exact + bias.double())
    _near(torch.addmm(matrix, a, b, beta=0.5, alpha=2), 2 * exact + matrix.double() / 2)
    expected = matrix.double() + exact
    _near(torch.addmm(matrix, a, b, out=matrix), expected)


def test_batches_are_multiplied_in_fp32(widened: None) -> None:
    torch.manual_seed(1)
    a, b, c = (torch.randn(3, *shape).bfloat16() for shape in ((5, 8), (8, 6), (5, 6)))
    wide = torch.bmm(a.double(), b.double())
    for found, exact in (
        (torch.bmm(a, b), wide),
        (torch.bmm(a, b, out=torch.empty_like(c)), wide),
        (torch.baddbmm(c, a, b, alpha=0.5), c.double() + wide / 2),
        (torch.baddbmm(c, a, b, out=torch.empty_like(c)), c.double() + wide),
    ):
        _near(found, exact)
    exact_sums = torch.full((1, 2, 4096), 1.0).bfloat16(), torch.full((1, 4096, 2), 1 / 64).bfloat16()
    assert torch.bmm(*exact_sums).unique().tolist() == [64.0]


def test_gradients_are_those_of_rounded_operands(widened: None) -> None:
    """Of a linear layer under autocast: its operands are rounded, its sums are not."""
    torch.manual_seed(1)
    layer, x, gradient = torch.nn.Linear(32, 48), torch.randn(2, 50, 32, requires_grad=True), torch.randn(2, 50, 48)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    out.backward(gradient.bfloat16())
    narrow = [each.detach().bfloat16().double() for each in (x, layer.weight, gradient)]
    x64, weight64, gradient64 = narrow
    _near(out, F.linear(x64, weight64, layer.bias.detach().bfloat16().double()))
    for found, exact in (
        (x.grad, gradient64 @ weight64),
        (layer.weight.grad, gradient64.flatten(0, 1).t() @ x64.flatten(0, 1)),
    ):
        assert found is not None
        torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5 * float(exact.norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_other_products_are_torchs_own(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    a, b, c = (torch.randn(shape, dtype=dtype) for shape in ((5, 8), (8, 6), (5, 6)))

    def products() -> list[Tensor]:
        out = torch.empty_like(c)
        torch.mm(a, b, out=out)
        return [
            a @ b,
            out,
            torch.addmm(c, a, b, alpha=2),
            torch.bmm(a[None], b[None]),
            torch.baddbmm(c[None], a[None], b[None]),
        ]

    before, library = products(), _widened._overriding()
    during = products()
    del library
    assert all(torch.equal(one, other) for one, other in zip(before, during, strict=True))


def test_a_precision_sets_products_up_and_another_takes_it_back() -> None:
    """Where the CPU has units nothing is set up."""
    try:
        suit_products("bf16")
        assert bool(_widened._in_force) is not has_bf16_units()
        first = list(_widened._in_force)
        suit_products("bf16")
        assert _widened._in_force == first, "once is enough"
    finally:
        suit_products("fp32")
    assert not _widened._in_force
