"""Wide products in fp32 against float64, by whichever library multiplies them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL, _wide_products
from txlplan.nn._overrides import can_override
from txlplan.nn._wide_products import has_wide_products, is_wide, rows_vary, wide_products

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not can_override(), reason="needs a torch with oneDNN that lends its kernels"
)


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of all products that oneDNN took over, as on a CPU on which it is the faster one."""
    made: list[tuple[int, ...]] = []
    suits = _wide_products._suit

    def counted(operands: tuple[Tensor, ...]) -> bool:
        if found := suits(operands):
            made.append((*operands[-2].shape, operands[-1].shape[1]))
        return found

    monkeypatch.setattr(_wide_products, "has_wide_products", lambda: True)
    monkeypatch.setattr(_wide_products, "_suit", counted)
    taking_over = wide_products()
    yield made
    del taking_over


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 80), st.integers(0, 70), st.integers(900, 2200)),
    turned=st.tuples(st.booleans(), st.booleans()),
    apart=st.integers(0, 3),
    added=st.sampled_from(["nothing", "row", "one row", "matrix"]),
    seed=st.integers(0, 9),
)
def test_products_are_those_of_float64(
    sizes: tuple[int, int, int], turned: tuple[bool, bool], apart: int, added: str, seed: int
) -> None:
    """Of factors that lie this way or that, also as parts of wider ones; and only those are taken over that are wide."""
    torch.manual_seed(seed)
    M, K, N = sizes

    def matrix(rows: int, columns: int, is_turned: bool) -> Tensor:
        lines, length = (columns, rows) if is_turned else (rows, columns)
        whole = torch.randn(lines, length + apart)[:, :length]
        return whole.t() if is_turned else whole

    left, right = matrix(M, K, turned[0]), matrix(K, N, turned[1])
    to_add = {"nothing": [], "row": [torch.randn(N)], "one row": [torch.randn(1, N)], "matrix": [torch.randn(M, N)]}[added]
    exact = left.double() @ right.double() + sum(each.double() for each in to_add)
    size = left.double().abs() @ right.double().abs() + sum(each.double().abs() for each in to_add)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_wide_products, "has_wide_products", lambda: True)
        taking_over = wide_products()
        found = torch.addmm(to_add[0], left, right) if to_add else left @ right
        del taking_over
    assert found.dtype == torch.float32
    assert found.shape == (M, N)
    assert bool(((found.double() - exact).abs() <= 2.0**-22 * (K + 1) ** 0.5 * size).all())


@pytest.mark.usefixtures("by_onednn")
def test_a_layer_and_its_gradients_are_taken_over_where_they_are_wide(by_onednn: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(40, 24, requires_grad=True), torch.randn(1100, 24, requires_grad=True)
    wide = torch.randn(40, 1100, requires_grad=True)
    F.linear(x, weight, torch.zeros(1100)).sum().backward()
    assert by_onednn == [(40, 24, 1100)], "gradients have 24 columns"
    del by_onednn[:]
    F.linear(wide, weight.t()).sum().backward()
    assert by_onednn == [(40, 24, 1100)], "the gradient of what is wide"


def test_what_varies_or_is_small_or_of_another_dtype_stays_torchs(by_onednn: list[tuple[int, ...]]) -> None:
    left, right = torch.randn(64, 8), torch.randn(2049, 8).t()
    with rows_vary():
        left @ right
    left[:16] @ right
    left.double() @ right.double()
    left @ right[:, :1000]
    torch.addmm(torch.zeros(2049), left, right, beta=0.5)
    torch.mm(left, right, out=torch.empty(64, 2049))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        left[:, :4] @ right
    assert by_onednn == []
    left @ right
    assert by_onednn == [(64, 8, 2049)]


def test_further_clusters_of_words_whose_rows_vary_stay_torchs(by_onednn: list[tuple[int, ...]]) -> None:
    """Each number of rows would keep code of its own; the head meets all rows."""
    config = ModelConfig(
        id="words",
        n_layer=1,
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=32,
        vocab_size=4500,
        cutoffs=(1500,),
        tgt_len=50,
        mem_len=0,
    )
    model = TransformerXL(config)
    tokens = torch.randint(0, 4500, (2, 51))
    hidden, _ = model(tokens[:, :-1], model.initial_memory(2), torch.tensor(0))
    model.nll(hidden, tokens[:, 1:]).sum().backward()
    assert by_onednn == [(100, 16, 1501)]


def test_which_are_wide() -> None:
    """Odd ones from 1,024 columns on, others as linear layers have them from 1,792; none of few rows."""
    assert [columns for columns in (1001, 1025, 1792, 2048) if is_wide(64, columns, as_linear=True)] == [1025, 1792, 2048]
    assert [columns for columns in (1001, 1025, 1792, 2048) if is_wide(64, columns, as_linear=False)] == [1025]
    assert not is_wide(31, 2049, as_linear=True)


def test_products_of_other_cpus_stay_torchs() -> None:
    if not has_wide_products():
        assert wide_products() is None
