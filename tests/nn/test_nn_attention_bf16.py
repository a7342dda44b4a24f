"""Attention by code of our own in bf16, by both kinds of products, against tiles of torch's products in float64."""

from __future__ import annotations

import ctypes
import dataclasses

import pytest
import torch
from attention_cases import Case, cases, outcomes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from narrower_registers import built
from torch import Tensor

from txlplan.nn import _attention_code
from txlplan.nn._attention_code import CompiledScores
from txlplan.nn._instructions import may_use_tiles
from txlplan.nn._own_code import can_compile, library
from txlplan.nn._positions import key_mask

pytestmark = pytest.mark.skipif(
    not can_compile("attention_bf16"), reason="needs a CPU that multiplies bf16, and a C++ compiler that knows OpenMP"
)
BF16 = torch.bfloat16
EPSILON = 2.0**-8
"""What rounding to bf16 changes, relative, at most."""


@pytest.fixture(scope="module")
def without_tiles(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """As a CPU has it that multiplies bf16 in registers alone."""
    return built("attention_bf16", tmp_path_factory.mktemp("built"), "-march=native", "-DWITHOUT_TILES")


@pytest.fixture(params=["tiles", "registers"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, without_tiles: ctypes.CDLL) -> str:
    """Tiles where the CPU has them."""
    if request.param == "tiles":
        uses_tiles = library("attention_bf16").uses_tiles()
        assert uses_tiles or not may_use_tiles()
        if not uses_tiles:
            pytest.skip("this CPU has no tiles for bf16, or is told to do without")
    if request.param == "registers":
        monkeypatch.setattr(
            _attention_code, "library", lambda name: without_tiles if name == "attention_bf16" else library(name)
        )
    return request.param


def mean_error(found: Tensor, exact: Tensor) -> float:
    """Root of the mean square."""
    return float((found.double() - exact).square().mean().sqrt())


def largest_error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max())


def assert_as_in_float64(case: Case) -> None:
    """A number, of few as of bias alone, may be the small sum of large ones, of each query's; what cancels so much that errors
    are beyond a few roundings is off by about as much in torch's products."""
    found, exact = outcomes(case, BF16, rounded=True), outcomes(case, torch.float64, tiled=True, rounded=True)
    tiled = outcomes(case, BF16, tiled=True, rounded=True)
    for name, value in exact.items():
        few = (case.B * case.T / value.numel()) ** 0.5
        roundings = EPSILON * (float(value.square().mean().sqrt()) + few), EPSILON * (float(value.abs().max()) + few)
        assert mean_error(found[name], value) <= max(2 * roundings[0], 3 * mean_error(tiled[name], value)), name
        assert largest_error(found[name], value) <= max(4 * roundings[1], 3 * largest_error(tiled[name], value)), name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), threads=st.integers(1, 3))
def test_it_is_the_tiled_one_in_float64(case: Case, threads: int) -> None:
    torch.set_num_threads(threads)
    assert_as_in_float64(case)


@pytest.mark.parametrize("longer", [1, 8])
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize(("K", "M"), [(64, 200), (41, 450), (40, 64), (16, 150)])
def test_it_errs_less_than_tiles_of_torch(K: int, M: int, dropped: bool, longer: int) -> None:
    """Also where scores are large."""
    case = Case(B=2, T=200, M=M, H=2, K=K, dropped=dropped, longer=longer)
    exact = outcomes(case, torch.float64, tiled=True, rounded=True)
    found, tiled = outcomes(case, BF16, rounded=True), outcomes(case, BF16, tiled=True, rounded=True)
    assert all(mean_error(found[name], value) < mean_error(tiled[name], value) for name, value in exact.items())


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_heads_that_threads_share_are_summed_alike_each_time(threads: int) -> None:
    case = Case(B=4, T=70, M=20, H=3, K=8)
    torch.set_num_threads(threads)
    assert_as_in_float64(case)
    first, second = outcomes(case, BF16), outcomes(case, BF16)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_probabilities_that_are_computed_again_are_those_that_were_kept() -> None:
    kept = Case(B=2, T=129, M=100, H=2, K=24, dropped=True)
    first, second = outcomes(kept, BF16), outcomes(dataclasses.replace(kept, again=True), BF16)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("memory", [2, 200])
def test_a_score_that_is_no_number_is_seen(memory: int) -> None:
    keys = memory + 3
    qkv, kv, r = (torch.randn(*shape).to(BF16) for shape in ((1, 3, 3, 1, 4), (2, 1, memory, 1, 4), (keys, 1, 4)))
    qkv[0, 1, 0, 0, 2] = float("nan")
    u = torch.zeros(1, 4)
    scores = CompiledScores(qkv_BT3HK=qkv, k_BMHK=kv[0], v_BMHK=kv[1], r_SHK=r, u_HK=u, v_HK=u)
    mixed, _ = scores.mix(key_mask(3, memory, torch.tensor(memory), None), keep_probabilities=False)
    assert mixed.isnan().any(dim=-1).flatten().tolist() == [False, True, False]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("score", [10.0, 20.0, 50.0, 1e4])
def test_a_key_that_outdoes_all_before_it_takes_all(score: float, again: bool) -> None:
    """However far: what is subtracted from a row's scores is the largest of the first ones, unless others are far larger."""
    qkv, r = torch.zeros(1, 3, 3, 1, 4, dtype=BF16), torch.zeros(103, 1, 4, dtype=BF16)
    kv = torch.randn(2, 1, 100, 1, 4).to(BF16)
    qkv[:, :, 0], kv[0], kv[0, :, 70] = score, 0.0, 1.0
    u = torch.zeros(1, 4)
    scores = CompiledScores(qkv_BT3HK=qkv, k_BMHK=kv[0], v_BMHK=kv[1], r_SHK=r, u_HK=u, v_HK=u)
    masked = key_mask(3, 100, torch.tensor(100), None)
    mixed, kept = scores.mix(masked, keep_probabilities=True)
    assert torch.allclose(mixed, kv[1, :, 70].expand_as(mixed), rtol=2 * EPSILON, atol=1e-5)
    gradients = scores.gradients(torch.ones_like(mixed), masked if again else kept)
    of_values = gradients.kv_BM2HK[:, :, 1].float()
    assert torch.allclose(of_values[:, 70], torch.full_like(of_values[:, 70], 3.0), rtol=2 * EPSILON)
    assert float(of_values.sum()) == pytest.approx(3 * 4, rel=2 * EPSILON)
    assert gradients.qkv_BT3HK.isfinite().all()


@pytest.mark.parametrize("threads", [1, 3])
def test_tiny_numbers_are_what_they_were_after_it(threads: int) -> None:
    """In every thread: within it they are zeros."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    outcomes(Case(B=2, T=70, M=90, H=3, K=20, dropped=False, again=True), BF16)
    tiny = torch.full((1 << 20,), 1e-40)
    assert bool((tiny * 0.5 > 0).all())


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_left_of_numbers_that_were_none(again: bool) -> None:
    torch.set_num_threads(1)
    case = Case(B=1, T=70, M=90, H=2, K=20, dropped=True, again=again)
    before = outcomes(case, BF16)
    wide = torch.full((1, 200, 3, 2, 24), float("nan"), dtype=BF16)
    none, bias = wide[:, :0, 0], wide[0, 0, 0].float()
    larger = CompiledScores(qkv_BT3HK=wide, k_BMHK=none, v_BMHK=none, r_SHK=wide[0, :, 0], u_HK=bias, v_HK=bias)
    mixed, kept = larger.mix(key_mask(200, 0, torch.tensor(0), None), keep_probabilities=True)
    larger.gradients(mixed, kept)
    after = outcomes(case, BF16)
    assert all(torch.equal(before[name], after[name]) for name in before)
