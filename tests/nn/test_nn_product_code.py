"""Products of bf16 by tiles against float64, and torch's own where they are not for us."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from txlplan.nn import _product_code
from txlplan.nn._own_code import can_compile, library
from txlplan.nn._product_code import has_tiles, multiply, tile_products

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="needs a CPU with AMX, and a C++ compiler that knows it and OpenMP")
BF16 = torch.bfloat16


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of all products by tiles, while these take over torch's."""
    made: list[tuple[int, ...]] = []

    def counted(left_MD: Tensor, right_DN: Tensor, *rest: Tensor) -> Tensor:
        made.append((*left_MD.shape, right_DN.shape[1]))
        return multiply(left_MD, right_DN, *rest)

    monkeypatch.setattr(_product_code, "multiply", counted)
    taking_over = tile_products()
    yield made
    del taking_over


def matrix(rows: int, columns: int, *, turned: bool, apart: int = 0) -> Tensor:
    """Of normal numbers, of which those of a row lie together, or those of a column; lines are `apart`."""
    lines, length = (columns, rows) if turned else (rows, columns)
    whole = torch.randn(lines, length + apart).to(BF16)[:, :length]
    return whole.t() if turned else whole


def check(found_MN: Tensor, left_MD: Tensor, right_DN: Tensor, added: Tensor | None = None) -> None:
    """Off by the rounding to bf16, and of sums in fp32."""
    assert found_MN.dtype == BF16
    exact_MN = left_MD.double() @ right_DN.double() + (0.0 if added is None else added.double())
    size = left_MD.double().abs() @ right_DN.double().abs() + (0.0 if added is None else added.double().abs())
    off = (found_MN.double() - exact_MN).abs()
    assert bool((off <= 2.0**-8 * exact_MN.abs() + 2.0**-23 * (left_MD.shape[1] + 1) ** 0.5 * size).all())


@needs_tiles
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 200), st.integers(1, 1200), st.integers(1, 200)),
    turned=st.tuples(st.booleans(), st.booleans()),
    apart=st.integers(0, 40),
    added=st.sampled_from(["nothing", "row", "one row", "matrix", "itself"]),
    threads=st.integers(1, 5),
)
def test_products_of_any_size_are_exact_but_for_rounding(
    sizes: tuple[int, int, int], turned: tuple[bool, bool], apart: int, added: str, threads: int
) -> None:
    """Around the result nothing is written; of how many threads it is does not matter, to the last bit."""
    torch.manual_seed(1)
    M, D, N = sizes
    left, right = matrix(M, D, turned=turned[0], apart=apart), matrix(D, N, turned=turned[1], apart=apart)
    room = torch.randn(M + 2, N + apart + 2).to(BF16)
    before, out = room.clone(), room[1:-1, 1 : N + 1]
    more = {"nothing": None, "row": torch.randn(N).to(BF16), "one row": torch.randn(1, N).to(BF16)}.get(added, out)
    more = torch.randn(M, N).to(BF16) if added == "matrix" else more
    known = None if more is None else more.clone()
    torch.set_num_threads(1)
    once = multiply(left, right, torch.empty(M, N, dtype=BF16), known)
    torch.set_num_threads(threads)
    assert multiply(left, right, out, more) is out
    check(out, left, right, known)
    assert torch.equal(out, once)
    out.copy_(before[1:-1, 1 : N + 1])
    assert torch.equal(room, before)


@needs_tiles
@pytest.mark.parametrize(
    "sizes", [(2100, 2100, 96), (96, 600, 2100), (400, 96, 2100), (100, 5000, 70), (70, 500, 9000), (64, 70_000, 64)], ids=str
)
@pytest.mark.parametrize("threads", [1, 2, 6])
def test_products_in_several_parts_are_the_whole(sizes: tuple[int, int, int], threads: int) -> None:
    """More than is packed at a time, of rows, of columns and of the depth."""
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    M, D, N = sizes
    left, right = matrix(M, D, turned=False), matrix(D, N, turned=True)
    check(multiply(left, right, torch.empty(M, N, dtype=BF16)), left, right)


@needs_tiles
def test_what_is_no_number_stays_none(calls: list[tuple[int, ...]]) -> None:
    a, b = torch.ones(130, 130, dtype=BF16), torch.ones(130, 130, dtype=BF16)
    a[3, 5], a[7, 0] = float("nan"), float("inf")
    found = a @ b
    assert calls == [(130, 130, 130)]
    assert bool(found[3].isnan().all())
    assert bool((found[7] == float("inf")).all())
    assert bool((found[[0, 129]] == 130).all())


@needs_tiles
def test_autograd_and_autocast_call_them(calls: list[tuple[int, ...]]) -> None:
    """A linear layer's product, and the gradients of its input and its weight."""
    torch.manual_seed(1)
    layer, x = torch.nn.Linear(160, 192), torch.randn(2, 128, 160, requires_grad=True)
    with torch.autocast("cpu", dtype=BF16):
        out = layer(x)
    gradient = torch.randn(2, 128, 192).to(BF16)
    out.backward(gradient)
    assert calls == [(256, 160, 192), (256, 192, 160), (192, 256, 160)]
    rows, weight, by_row = x.detach().to(BF16).flatten(0, 1), layer.weight.detach().to(BF16), gradient.flatten(0, 1)
    check(out.detach().flatten(0, 1), rows, weight.t(), layer.bias.detach().to(BF16))
    assert x.grad is not None
    assert layer.weight.grad is not None
    check(x.grad.flatten(0, 1).to(BF16), by_row, weight)
    check(layer.weight.grad.to(BF16), by_row.t(), rows)


@needs_tiles
def test_the_rest_is_torchs_own(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, and its errors too."""
    torch.manual_seed(1)
    a, b, bias = torch.randn(200, 200).to(BF16), torch.randn(200, 200).to(BF16), torch.randn(200).to(BF16)

    def others() -> list[Tensor]:
        own = torch.empty(200, 400, dtype=BF16)
        return [
            a.float() @ b.float(),
            a[:63] @ b,
            a[:, :63] @ b[:63],
            a @ b[:, :63],
            a[:, ::2] @ b[::2],
            torch.addmm(bias, a, b, alpha=2),
            torch.addmm(bias[:, None], a, b),
            torch.mm(a, b, out=own[:, ::2]),
            F.linear(a[:1], b),
        ]

    found = others()
    for wrong in (
        lambda: torch.mm(a, b[:100]),
        lambda: torch.mm(a, b.float()),
        lambda: torch.addmm(bias[:70], a, b),
        lambda: torch.addmm(a.t(), a, b, out=a),
    ):
        with pytest.raises(RuntimeError):
            wrong()
    assert calls == []
    monkeypatch.setattr(_product_code, "_suit", lambda _operands: False)
    assert all(torch.equal(one, other) for one, other in zip(found, others(), strict=True))


@needs_tiles
def test_results_go_where_they_are_to(calls: list[tuple[int, ...]]) -> None:
    """Also over what is added, as gradients of two products of one weight are."""
    torch.manual_seed(1)
    a, b, out = torch.randn(256, 128).to(BF16), torch.randn(128, 256).to(BF16), torch.randn(256, 256).to(BF16)
    before = out.clone()
    torch.addmm(out, a, b, out=out)
    check(out, a, b, before)
    torch.mm(a, b, out=out)
    check(out, a, b)
    assert calls == [(256, 128, 256)] * 2
    known = out[:1].clone()
    torch.addmm(out[:1], a, b, out=out)
    check(out, a, b, known)
    with pytest.raises(RuntimeError):
        torch.mm(a, b, out=torch.empty(256, dtype=BF16).expand(256, 256))
    assert len(calls) == 2, "what is read or written twice is torch's"


@pytest.mark.skipif(
    not (torch.cpu._is_amx_tile_supported() and can_compile("product_bf16")),
    reason="needs a CPU with AMX, and a C++ compiler that knows it and OpenMP",
)
def test_the_code_asks_the_system_for_tiles() -> None:
    assert library("product_bf16").has_products()
