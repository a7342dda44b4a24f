"""Linear layers in bf16 with weights of fp32, by tiles and by torch, against float64; modules against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from txlplan.nn import _linear_code
from txlplan.nn._linear import Linear, relu_between
from txlplan.nn._linear_code import add_weight_gradient, input_gradient, linear, weight_gradient
from txlplan.nn._product_code import has_tiles, suits_tiles

BF16 = torch.bfloat16
ROUNDING, SUMMING = 2.0**-8, 2.0**-22
TILES = pytest.param(True, marks=pytest.mark.skipif(not has_tiles(), reason="needs a CPU with AMX, and a compiler"), id="tiles")
by_tiles_or_torch = pytest.mark.parametrize("tiles", [TILES, pytest.param(False, id="torch")])


@by_tiles_or_torch
@settings(max_examples=40, deadline=None)
@given(sizes=st.tuples(*[st.integers(1, 300)] * 3), biased=st.booleans())
def test_products_of_any_size_are_exact_but_for_rounding(sizes: tuple[int, int, int], biased: bool, tiles: bool) -> None:
    check_products(sizes, biased, tiles)


@by_tiles_or_torch
@pytest.mark.parametrize("sizes", [(70, 2100, 600), (2100, 70, 600), (600, 1200, 70), (1030, 520, 1540)], ids=str)
def test_products_in_several_parts_are_the_whole(sizes: tuple[int, int, int], tiles: bool) -> None:
    """More than is packed at a time, of rows, of columns and of the depth."""
    check_products(sizes, True, tiles)


def check_products(sizes: tuple[int, int, int], biased: bool, tiles: bool) -> None:
    """Off by the rounding of results to bf16, by torch of biases too; gradients of weights by tiles are not rounded."""
    torch.manual_seed(1)
    R, K, N = sizes
    x, weight, bias = torch.randn(R, K).to(BF16), torch.randn(N, K), torch.randn(N) if biased else None
    gradient, inner, before = torch.randn(R, N).to(BF16), torch.randn(R, K).to(BF16), torch.randn(N, K)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_linear_code, "_has_tiles", lambda: tiles)
        out, positive = linear(x, weight, bias), linear(x, weight, bias, relu=True)
        of_x, masked = input_gradient(gradient, weight), input_gradient(gradient, weight, inner)
        of_weight, total = weight_gradient(gradient, x), before.clone()
        add_weight_gradient(total, gradient, x)
    of_bias = 0.0 if bias is None else ROUNDING * bias.abs()
    check(out, x, weight.to(BF16).t(), bias, allowed=of_bias)
    assert torch.equal(positive, out.relu())
    check(of_x, gradient, weight.to(BF16))
    assert torch.equal(masked, torch.where(inner > 0, of_x, 0.0))
    assert of_weight.dtype == torch.float32
    unrounded = tiles and suits_tiles(gradient.t(), x)
    check(of_weight, gradient.t(), x, rounding=0.0 if unrounded else ROUNDING)
    check(total, gradient.t(), x, before, rounding=0.0 if unrounded else 2 * ROUNDING, allowed=ROUNDING * before.abs())


def check(
    found: Tensor,
    left: Tensor,
    right: Tensor,
    added: Tensor | None = None,
    *,
    rounding: float = ROUNDING,
    allowed: Tensor | float = 0.0,
) -> None:
    left, right, more = left.double(), right.double(), torch.zeros(()) if added is None else added.double()
    exact, size = left @ right + more, left.abs() @ right.abs() + more.abs()
    allowed = allowed + rounding * exact.abs() + SUMMING * left.shape[1] ** 0.5 * size
    assert bool(((found.double() - exact).abs() <= allowed).all())


@by_tiles_or_torch
def test_what_is_no_number_stays_none(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind a relu, of either sign."""
    monkeypatch.setattr(_linear_code, "_has_tiles", lambda: tiles)
    x, weight = torch.ones(130, 130, dtype=BF16), torch.ones(130, 130)
    x[3, 5], x[7, 0], x[9, :2] = float("nan"), float("inf"), torch.tensor([float("inf"), float("-inf")])
    for relu in (False, True):
        found = linear(x, weight, relu=relu)
        assert bool(found[[3, 9]].isnan().all())
        assert bool((found[7] == float("inf")).all())
        assert bool((found[[0, 129]] == 130).all())
    signed = torch.tensor([float("nan"), -1.0, 1.0, 0.0], dtype=BF16).repeat(130, 33)[:, :130]
    for inner in (signed, -signed):
        masked = input_gradient(x[[0]].expand(130, -1), weight, inner)
        assert torch.equal(masked == 130, ~(inner <= 0))


def results(layers: list[torch.nn.Linear], x: Tensor, *, own: bool) -> dict[str, Tensor]:
    """Output and gradients of one layer, or of two with a relu between them, under autocast."""
    for layer in layers:
        layer.compiled = own  # type: ignore[assignment]
        layer.zero_grad()
    given = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=BF16):
        if len(layers) == 1:
            out = layers[0](given)
        else:
            out = relu_between(given, *layers) if own else layers[1](F.relu(layers[0](given)))  # type: ignore[arg-type]
    torch.manual_seed(2)
    out.backward(torch.randn(out.shape).to(out.dtype))
    named = {f"{place}.{name}": each for place, layer in enumerate(layers) for name, each in layer.named_parameters()}
    return {"out": out.detach(), "x": given.grad, **{name: each.grad for name, each in named.items()}}  # type: ignore[dict-item]


@by_tiles_or_torch
@pytest.mark.parametrize(
    ("many", "bias"), [(1, True), (1, False), (2, True)], ids=["one", "one without bias", "relu between two"]
)
def test_a_layer_is_torchs_but_for_rounding(many: int, bias: bool, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the dtypes that autocast gives."""
    monkeypatch.setattr(_linear_code, "_has_tiles", lambda: tiles)
    torch.manual_seed(1)
    layers: list[torch.nn.Linear] = [Linear(96, 160, bias=bias), Linear(160, 96)][:many]
    x = torch.randn(4, 64, 96)
    own, torchs = results(layers, x, own=True), results(layers, x, own=False)
    assert own.keys() == torchs.keys()
    for name, theirs in torchs.items():
        assert own[name].dtype == theirs.dtype
        assert own[name].shape == theirs.shape
        assert (own[name] - theirs).norm() < 2.0**-7 * theirs.norm(), name
