"""Widened products of bf16 against products of the same numbers in fp32 and float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from txlplan.nn import _suited_products, _widened
from txlplan.nn._widened import has_fast_bf16, multiply

torch.set_num_threads(1)


@pytest.fixture
def widened() -> Iterator[None]:
    """As on a CPU for which torch has no fast products of bf16, on any."""
    assert not _suited_products._in_force
    library = _widened.widened_products()
    yield
    del library


def _near(found: Tensor, exact: Tensor) -> None:
    """bf16, and off by no more than its own rounding and that of sums in fp32."""
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5 * float(exact.norm()))


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 5), (7, 64, 3000), (3000, 64, 7), (64, 3000, 7), (200, 200, 200), (0, 3, 4), (3, 0, 4), (3, 4, 0)],
    ids=str,
)
def test_matrices_in_pieces_are_the_whole(widened: None, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, inner and columns; the limits are small so that pieces are several, and the last one shorter."""
    monkeypatch.setattr(_widened, "_PIECE_BYTES", 1 << 14)
    torch.manual_seed(1)
    rows, inner, columns = shape
    a, b = torch.randn(inner, rows).bfloat16().t(), torch.randn(columns, inner).bfloat16().t()
    bias, matrix = torch.randn(columns).bfloat16(), torch.randn(rows, columns).bfloat16()
    exact = a.double() @ b.double()
    strided = torch.empty(2 * rows, columns, dtype=torch.bfloat16)[::2]
    _near(torch.mm(a, b), exact)
    _near(torch.mm(a.contiguous(), b.contiguous(), out=strided), exact)
    for added in (bias, bias[None], matrix, matrix[:, :1]):
        _near(torch.addmm(added, a, b), exact + added.double())
        _near(torch.addmm(added, a, b, beta=0.5, alpha=2), 2 * exact + added.double() / 2)
    _near(torch.addmm(torch.full_like(matrix, float("nan")), a, b, beta=0), exact)
    expected = matrix.double() + exact
    _near(torch.addmm(matrix, a, b, out=matrix), expected)


@pytest.mark.parametrize(
    ("shapes", "calls"),
    [
        (((1000, 512), (512, 256)), 1),
        (((6000, 512), (512, 256)), 6),
        (((256, 512), (512, 6000)), 6),
        (((256, 6000), (6000, 512)), 1),
        (((64, 8, 64), (64, 64, 32)), 1),
        (((64, 256, 64), (64, 64, 512)), 16),
    ],
    ids=str,
)
def test_little_is_widened_at_a_time(shapes: tuple[tuple[int, ...], tuple[int, ...]], calls: int) -> None:
    """Two MiB of what is long, in each call of a kernel that is given fp32 alone. (Of inner products one call is the first.)"""
    given: list[tuple[Tensor, ...]] = []

    def kernel(*operands: Tensor) -> Tensor:
        given.append(operands)
        return torch.matmul(*operands)

    a, b = (torch.randn(shape).bfloat16() for shape in shapes)
    _near(multiply(kernel, (a, b)).bfloat16(), a.double() @ b.double())
    assert len(given) == calls
    for operands in given:
        assert all(each.dtype == torch.float32 and each.nbytes <= 2 << 20 for each in operands)
        assert torch.matmul(*operands).nbytes <= 2 << 20


@pytest.mark.parametrize(
    ("operands", "out"),
    [
        ((torch.ones(2, 64).bfloat16(), torch.ones(100, 8).bfloat16()), None),
        ((torch.ones(2, 3).bfloat16(), torch.ones(3, 4)), None),
        ((torch.ones(2, 3).bfloat16(), torch.ones(3, 4).bfloat16()), torch.ones(2, 4)),
        ((torch.ones(2, 3).bfloat16(), torch.ones(3).bfloat16()), None),
        ((torch.ones(3).bfloat16(), torch.ones(3).bfloat16()), None),
        ((torch.ones(8).bfloat16(), torch.ones(2, 3).bfloat16(), torch.ones(3, 4).bfloat16()), None),
        ((torch.ones(10, 4).bfloat16(), torch.ones(5, 3).bfloat16(), torch.ones(3, 4).bfloat16()), None),
    ],
    ids=["inner sizes", "dtypes", "result's dtype", "no matrix", "two vectors", "bias too long", "matrix too long"],
)
def test_what_torch_refuses_is_refused_in_its_words(operands: tuple[Tensor, ...], out: Tensor | None) -> None:
    given, product = {} if out is None else {"out": out}, torch.mm if len(operands) == 2 else torch.addmm
    with pytest.raises(RuntimeError) as own:
        product(*operands, **given)
    library = _widened.widened_products()
    with pytest.raises(RuntimeError) as ours:
        product(*operands, **given)
    del library
    assert str(ours.value) == str(own.value)


def test_an_empty_result_is_made_as_large_as_it_must_be(widened: None) -> None:
    out = torch.empty(0, dtype=torch.bfloat16)
    torch.mm(torch.ones(5, 3).bfloat16(), torch.ones(3, 4).bfloat16(), out=out)
    assert torch.equal(out, torch.full((5, 4), 3.0).bfloat16())


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
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

    before, library = products(), _widened.widened_products()
    during = products()
    del library
    assert all(torch.equal(one, other) for one, other in zip(before, during, strict=True))


@pytest.mark.parametrize(
    ("avx512", "bf16", "limit", "fast"),
    [
        (True, True, "", True),
        (True, True, "AVX512_CORE_AMX", True),
        (True, True, "avx512_core", False),
        (True, False, "", False),
        (False, False, "", True),
    ],
    ids=["with bf16", "told what it has", "told to do without", "AVX-512 alone", "Arm"],
)
def test_bf16_is_fast_by_instructions_for_it(
    avx512: bool, bf16: bool, limit: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of CPUs that torch takes to be fast."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_fast_bf16() is fast
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not has_fast_bf16()
