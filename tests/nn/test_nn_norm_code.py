"""A residual normed by code of our own against float64, and against torch's sum and norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from txlplan.nn._norm_code import add_norm
from txlplan.nn._own_code import can_compile
from txlplan.nn._residual import Residual

pytestmark = pytest.mark.skipif(not can_compile("norm"), reason="needs a C++ compiler that knows OpenMP")
BF16 = torch.bfloat16
SLIGHT = 1e-5


def operands(rows: tuple[int, ...], width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y, weight, bias = torch.randn(*rows, width), torch.randn(*rows, width).to(BF16), torch.randn(width), torch.randn(width)
    return x.requires_grad_(), y.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def near(found: Tensor, exact: Tensor, size: Tensor) -> None:
    """Off by sums in fp32 of numbers of that size, and where it is of bf16 by its rounding."""
    assert found.dtype in (torch.float32, BF16)
    rounding = 2.0**-8 if found.dtype == BF16 else 0.0
    assert bool(((found.double() - exact).abs() <= rounding * exact.abs() + 2.0**-22 * size).all())


def most(*several: Tensor) -> Tensor:
    return torch.stack([each.detach().abs().max().double() for each in several]).max()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 150),
    threads=st.integers(1, 5),
    given=st.sampled_from(["both", "wide", "narrow"]),
)
def test_sum_norm_and_gradients_are_exact_but_for_rounding(rows: int, width: int, threads: int, given: str) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    own = operands((rows,), width)
    exact = tuple(each.detach().double().requires_grad_() for each in own)
    wide, narrow = add_norm(*own, SLIGHT)
    out = F.layer_norm(exact[0] + exact[1], (width,), *exact[2:], SLIGHT)
    total = (exact[0] + exact[1]).detach()
    inverse = most((total.var(1, unbiased=False) + SLIGHT).rsqrt())
    sums, weights = 1 + most(total) * inverse, 1 + most(*own[2:])
    near(wide.detach(), out.detach(), sums * weights)
    near(narrow.detach(), out.detach(), sums * weights)
    of_wide, of_narrow = torch.randn(rows, width), torch.randn(rows, width).to(BF16)
    parts = {"wide": (wide, of_wide), "narrow": (narrow, of_narrow)}
    chosen = list(parts.values()) if given == "both" else [parts[given]]
    torch.autograd.backward([part for part, _ in chosen], [gradient for _, gradient in chosen])
    out.backward(sum(gradient.double() for _, gradient in chosen))
    for found, known in zip(own, exact, strict=True):
        assert found.grad is not None
        assert known.grad is not None
        assert found.grad.dtype == found.dtype
        near(found.grad, known.grad, most(of_wide, of_narrow) * weights * (1 + inverse) * sums * rows**0.5)


def test_a_row_of_one_number_and_a_row_that_is_none() -> None:
    """The first has no deviation but what is added to its variance; the second leaves the others as they are."""
    x, y, weight, bias = torch.full((3, 20), 7.0), torch.zeros(3, 20, dtype=BF16), torch.ones(20), torch.full((20,), 0.5)
    x[1, 3] = float("nan")
    for out in add_norm(x, y, weight, bias, SLIGHT):
        assert bool((out[[0, 2]] == 0.5).all())
        assert bool(out[1].isnan().all())


@pytest.mark.parametrize("dtypes", [(torch.float32, BF16), (BF16, BF16), (torch.float32, torch.float32)], ids=str)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_residual_is_torchs_norm_of_the_sum(dtypes: tuple[torch.dtype, torch.dtype], compiled: bool) -> None:
    """By our own code where the one summand is wide and the other narrow; else once, in the dtype of the sum."""
    torch.manual_seed(1)
    x, y = (torch.randn(2, 5, 48).to(dtype) for dtype in dtypes)
    norm = Residual(48)
    norm.compiled = compiled
    wide, narrow = norm.normed_sum(x, y)
    expected = F.layer_norm(x + y, (48,), norm.weight, norm.bias)
    torch.testing.assert_close(wide, expected)
    if compiled and dtypes == (torch.float32, BF16):
        assert torch.equal(narrow, wide.to(BF16))
    else:
        assert narrow is wide
