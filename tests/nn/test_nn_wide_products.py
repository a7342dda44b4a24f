"""Wide products in fp32 against float64, by whichever library multiplies them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from txlplan.model import ModelConfig, _tiles
from txlplan.nn import TransformerXL, _instructions, _wide_products
from txlplan.nn._overrides import can_override
from txlplan.nn._wide_products import has_wide_products, is_wide, rows_vary, wide_products
from txlplan.nn._widened import widened_products

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not can_override(), reason="needs a torch with oneDNN that lends its kernels"
)


@contextmanager
def taken_over() -> Iterator[list[tuple[int, ...]]]:
    """Sizes of all products that oneDNN takes over meanwhile, as on a CPU on which it is the faster one."""
    made: list[tuple[int, ...]] = []
    suits = _wide_products._suit

    def counted(operands: tuple[Tensor, ...]) -> bool:
        if found := suits(operands):
            made.append((*operands[-2].shape, operands[-1].shape[1]))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_wide_products, "has_wide_products", lambda: True)
        patched.setattr(_wide_products, "_suit", counted)
        taking_over = wide_products()
        yield made
        del taking_over


@pytest.fixture
def by_onednn() -> Iterator[list[tuple[int, ...]]]:
    """The same for a whole test."""
    with taken_over() as made:
        yield made


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 80), st.integers(0, 70), st.integers(900, 2200)),
    turned=st.tuples(st.booleans(), st.booleans()),
    apart=st.sampled_from([0, 0, 3]),
    added=st.sampled_from(["nothing", "row", "one row", "matrix"]),
    seed=st.integers(0, 9),
)
def test_products_are_those_of_float64(
    sizes: tuple[int, int, int], turned: tuple[bool, bool], apart: int, added: str, seed: int
) -> None:
    """Of factors that lie this way or that, also as parts of wider ones; taken over are those that are wide, and whole."""
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
    with taken_over() as made:
        found = torch.addmm(to_add[0], left, right) if to_add else left @ right
    assert found.dtype == torch.float32
    assert found.shape == (M, N)
    assert bool(((found.double() - exact).abs() <= 2.0**-22 * (K + 1) ** 0.5 * size).all())
    ours = K > 0 and apart == 0 and added != "matrix" and is_wide(M, N, as_linear=turned == (False, True))
    assert made == ([sizes] if ours else [])


def test_a_layer_and_its_gradients_are_taken_over_where_they_are_wide(by_onednn: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(64, 40, requires_grad=True), torch.randn(1100, 40, requires_grad=True)
    wide = torch.randn(64, 1100, requires_grad=True)
    F.linear(x, weight, torch.zeros(1100)).square().sum().backward()
    assert by_onednn == [(64, 40, 1100)], "gradients have 40 columns"
    del by_onednn[:]
    F.linear(wide, torch.randn(40, 1100, requires_grad=True)).square().sum().backward()
    assert set(by_onednn) == {(64, 40, 1100), (40, 64, 1100)}, "the gradients of what is wide, and of its weight"


def test_what_varies_or_is_small_or_of_another_dtype_stays_torchs(by_onednn: list[tuple[int, ...]]) -> None:
    left, right = torch.randn(64, 8), torch.randn(2049, 8).t()
    with rows_vary():
        left @ right
    left[:16] @ right
    left.double() @ right.double()
    left @ right[:, :1000]
    torch.addmm(torch.zeros(2049), left, right, beta=0.5)
    torch.mm(left, right, out=torch.empty(64, 2049))
    left @ torch.ones(1, 1).expand(8, 2049)
    torch.ones(1, 1).expand(64, 8) @ right
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        left[:, :4] @ right
    with pytest.raises(RuntimeError, match="must be a matrix"):
        torch.mm(left, torch.tensor(1.0))
    assert by_onednn == []
    left @ right
    assert by_onednn == [(64, 8, 2049)]


@pytest.mark.parametrize("in_chunks", [False, True])
def test_further_clusters_of_words_whose_rows_vary_stay_torchs(
    by_onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, in_chunks: bool
) -> None:
    """Forward and backward, at once and in chunks of 1,500 words, whose logits backward computes again: each number of rows
    would keep code of its own. The head meets all rows."""
    if in_chunks:
        monkeypatch.setattr(_tiles, "LOGITS", 150_000)
    config = ModelConfig(
        id="words",
        n_layer=1,
        d_model=1800,
        n_head=2,
        d_head=8,
        d_inner=32,
        vocab_size=4500,
        cutoffs=(1500,),
        div_val=4,
        tgt_len=50,
        mem_len=0,
    )
    model = TransformerXL(config)
    tokens = torch.randint(0, 1500, (2, 51))
    tokens[0, 1:38] = 2000
    hidden, _ = model(tokens[:, :-1], model.initial_memory(2), torch.tensor(0))
    model.nll(hidden, tokens[:, 1:]).sum().backward()
    assert not [sizes for sizes in by_onednn if 37 in sizes]
    assert (100, 32, 1800) in by_onednn, "the outer layer"
    assert ((100, 1800, 1501) in by_onednn) == (not in_chunks), "the head's words, at once"


def test_a_backward_that_does_not_go_all_the_way_leaves_nothing_behind(by_onednn: list[tuple[int, ...]]) -> None:
    """Hidden states that want no gradient, while the words' vectors do."""
    config = ModelConfig(
        id="words", n_layer=1, d_model=8, n_head=1, d_head=8, d_inner=8, vocab_size=90, cutoffs=(30,), tgt_len=50, mem_len=0
    )
    model = TransformerXL(config)
    hidden, targets = torch.randn(1, 50, 8), torch.randint(0, 90, (1, 50))
    model.nll(hidden, targets).sum().backward()
    torch.randn(64, 8) @ torch.randn(2049, 8).t()
    assert by_onednn == [(64, 8, 2049)]


def test_bf16_that_is_widened_is_multiplied_by_the_same(by_onednn: list[tuple[int, ...]]) -> None:
    """With a bias, in pieces of a multiple of 64 rows."""
    x, weight = torch.randn(2000, 300, dtype=torch.bfloat16), torch.randn(1100, 300, dtype=torch.bfloat16)
    bias = torch.randn(1100, dtype=torch.bfloat16)
    widened = widened_products()
    found = F.linear(x, weight, bias)
    del widened
    assert {sizes[1:] for sizes in by_onednn} == {(300, 1100)}
    assert sum(sizes[0] for sizes in by_onednn) == 2000
    assert all(sizes[0] % 64 == 0 for sizes in by_onednn[:-1])
    exact = F.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(found.double(), exact, rtol=2.0**-8, atol=1e-3)


def test_which_are_wide() -> None:
    """Odd ones from 1,024 columns on, others as linear layers have them from 1,792; none of few rows."""
    assert [columns for columns in (1001, 1025, 1792, 2048) if is_wide(64, columns, as_linear=True)] == [1025, 1792, 2048]
    assert [columns for columns in (1001, 1025, 1792, 2048) if is_wide(64, columns, as_linear=False)] == [1025]
    assert not is_wide(31, 2049, as_linear=True)


@pytest.mark.parametrize("lacking", ["amd", "avx2", "mkl", "avx512 is there", ""])
def test_products_of_other_cpus_stay_torchs(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wide_products, "is_amd", lambda: lacking != "amd")
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: lacking == "avx512 is there")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: lacking != "mkl")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX" if lacking == "avx2" else "")
    assert has_wide_products.__wrapped__() == (not lacking)


def test_this_cpu_is_told_by_what_linux_says_of_it() -> None:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    vendors = {line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")}
    assert _instructions.is_amd() == (vendors == {"AuthenticAMD"})
