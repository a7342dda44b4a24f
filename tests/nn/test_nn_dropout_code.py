"""Dropout by code of our own: its numbers, its masks, and what they multiply."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from narrower_registers import built_for_narrower_registers, needs_narrower_registers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from txlplan.nn import _dropout_code
from txlplan.nn._dropout import Dropout
from txlplan.nn._dropout_code import compiled_mask, dropped, dropped_relu, new_seed
from txlplan.nn._own_code import can_compile

pytestmark = pytest.mark.skipif(not can_compile("dropout"), reason="needs a C++ compiler that knows OpenMP")
SIZES = st.sampled_from([0, 1, 7, 15, 16, 63, 64, 65, 1000, 40_000])
RATES = st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
MANY = 1 << 20
FOUR_SIGMA = 4.0


def seeded(seed: int) -> Tensor:
    return torch.tensor(seed)


def philox(counter: int, key: int) -> list[int]:
    """Philox4x32 of 7 rounds (Salmon et al. 2011, section 3.3), a word at a time."""
    a, b, c, d = counter & 0xFFFFFFFF, counter >> 32, 0, 0
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(7):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ keys[0], q & 0xFFFFFFFF, (p >> 32) ^ d ^ keys[1], p & 0xFFFFFFFF
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return [a, b, c, d]


def numbers(count: int, seed: int) -> Tensor:
    """Of 16 bits, one for each element: of 8 counters the first halves, then the others."""
    words = np.array([philox(counter, seed % 2**64) for counter in range(-(-count // 64) * 8)], dtype="<u4")
    blocks = words.reshape(-1, 8, 2, 2).transpose(0, 2, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(blocks).view("<u2").astype(np.int64).reshape(-1)[:count])


def test_philox_gives_what_its_authors_publish() -> None:
    """Of Random123's `kat_vectors`: philox4x32 7, all zero."""
    assert philox(0, 0) == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 700), seed=st.integers(-(2**63), 2**63 - 1), rate=RATES)
def test_a_mask_keeps_those_whose_number_is_not_below_the_rate(count: int, seed: int, rate: float) -> None:
    expected = (numbers(count, seed) >= round(rate * 2**16)).to(torch.int8)
    assert torch.equal(compiled_mask((count,), seeded(seed), rate), expected)


@settings(max_examples=30, deadline=None)
@given(count=SIZES, dtype=DTYPES, rate=RATES, threads=st.integers(2, 7))
def test_threads_change_nothing(count: int, dtype: torch.dtype, rate: float, threads: int) -> None:
    x, seed = torch.randn(count).to(dtype), seeded(5)
    found = []
    for several in (1, threads):
        torch.set_num_threads(several)
        torch.manual_seed(3)
        found.append((compiled_mask((count,), seed, rate), dropped(x, rate), dropped_relu(x, rate)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def both(x: Tensor, of_y: Tensor, rate: float, *, relu: bool) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    torch.manual_seed(11)
    y = (dropped_relu if relu else dropped)(x, rate)
    y.backward(of_y)
    assert x.grad is not None
    return y.detach(), x.grad


@settings(max_examples=60, deadline=None)
@given(count=SIZES, dtype=DTYPES, rate=RATES, relu=st.booleans(), threads=st.integers(1, 3))
def test_values_and_gradients_are_those_of_float64_rounded_once(
    count: int, dtype: torch.dtype, rate: float, relu: bool, threads: int
) -> None:
    """The scale is rounded to fp32; products of bf16 are rounded twice, to fp32 and to the nearest even."""
    torch.set_num_threads(threads)
    x, of_y = (torch.randn(count).to(dtype) for _ in range(2))
    torch.manual_seed(11)
    mask = compiled_mask((count,), new_seed(), rate).double() * torch.tensor(1 / (1 - rate)).double()
    passed = (x > 0).double() if relu else 1.0
    y, of_x = both(x, of_y, rate, relu=relu)
    assert torch.equal(y, (x.double() * mask * passed).float().to(dtype))
    assert torch.equal(of_x, (of_y.double() * mask * passed).float().to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_have_the_same_mask(dtype: torch.dtype) -> None:
    x = torch.randn(999)
    for relu in (False, True):
        wide, other = (both(each, torch.ones_like(each), 0.25, relu=relu) for each in (x, x.to(dtype)))
        for one, two in zip(wide, other, strict=True):
            torch.testing.assert_close(one.double(), two.double(), rtol=2e-3, atol=1e-6)


@needs_narrower_registers
def test_on_a_cpu_of_narrower_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To the last bit as on any other."""
    sizes = [(n, dtype, relu) for n in (0, 5, 64, 5000) for dtype in _dropout_code._CODE for relu in (False, True)]
    cases = [(torch.randn(n).to(dtype), relu) for n, dtype, relu in sizes]

    def outcomes() -> list[Tensor]:
        found: list[Tensor] = []
        for x, relu in cases:
            found += [*both(x, x.flip(0), 0.1, relu=relu), compiled_mask(x.shape, seeded(9), 0.1)]
        return found

    first, narrower = outcomes(), built_for_narrower_registers("dropout", tmp_path)
    monkeypatch.setattr(_dropout_code, "library", lambda _: narrower)
    assert all(torch.equal(one, other) for one, other in zip(first, outcomes(), strict=True))


@pytest.mark.parametrize("relu", [False, True])
def test_numbers_that_are_none_are_seen(relu: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(70, dtype=dtype)
        x[[3, 66]] = float("nan")
        y, of_x = both(x, torch.ones_like(x), 0.5, relu=relu)
        assert y.isnan().nonzero().flatten().tolist() == [3, 66]
        assert not of_x.isnan().any()


def z_score(found: float, expected: float, variance: float) -> float:
    return (found - expected) / math.sqrt(variance)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 3])
def test_a_mask_keeps_its_share_and_elements_are_independent(rate: float, seed: int) -> None:
    """Shares, and correlations at lags of a word, a counter, a block, a row, to four standard deviations."""
    keep = compiled_mask((MANY,), seeded(seed), rate).double()
    variance = rate * (1 - rate)
    kept = 1 - round(rate * 2**16) / 2**16
    assert abs(z_score(float(keep.mean()), kept, variance / MANY)) < FOUR_SIGMA
    centred = keep - kept
    for lag in (1, 2, 3, 4, 5, 8, 16, 32, 33, 64, 128, 256, 1000, 1024, 4096):
        products = float((centred[:-lag] * centred[lag:]).sum())
        assert abs(z_score(products, 0.0, variance**2 * (MANY - lag))) < FOUR_SIGMA, lag


def test_masks_of_seeds_that_follow_each_other_are_independent() -> None:
    rate, masks = 0.3, 40
    kept = 1 - round(rate * 2**16) / 2**16
    centred = torch.stack([compiled_mask((1 << 16,), seeded(seed), rate).double() - kept for seed in range(masks)])
    correlations = (centred @ centred.T) / (centred.shape[1] * kept * (1 - kept))
    apart = correlations[~torch.eye(masks, dtype=torch.bool)] * math.sqrt(centred.shape[1])
    assert float(apart.abs().max()) < 5.0
    assert float(apart.std()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", [0, 7, -12345])
def test_runs_of_eight_elements_are_as_often_as_they_should(seed: int) -> None:
    """Chi-square of all 256 patterns, 255 degrees of freedom: within four standard deviations of the mean."""
    rate = 0.5
    patterns = compiled_mask((MANY, 8), seeded(seed), rate).long() @ (1 << torch.arange(8))
    counts, expected = torch.bincount(patterns, minlength=256).double(), MANY / 256
    assert abs(z_score(float(((counts - expected) ** 2 / expected).sum()), 255, 2 * 255)) < FOUR_SIGMA


@pytest.mark.parametrize("place", [0, 1, 31, 32, 63])
def test_each_place_of_a_block_keeps_its_share(place: int) -> None:
    keep = compiled_mask((MANY // 64, 64), seeded(2), 0.25)[:, place].double()
    assert abs(z_score(float(keep.mean()), 0.75, 0.75 * 0.25 / len(keep))) < FOUR_SIGMA


def test_a_seed_is_drawn_from_torchs_generator() -> None:
    x = torch.ones(500)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    first, second = dropped(x, 0.4), dropped(x, 0.4)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropped(x, 0.4), first)
    assert torch.equal(dropped(x, 0.4), second)


@pytest.mark.parametrize("gelu", [False, True])
def test_checkpointing_draws_the_same_again(gelu: bool) -> None:
    dropout = Dropout(0.4)
    dropout.compiled = True

    def run(x: Tensor) -> Tensor:
        return 3 * (dropout(F.gelu(x)) if gelu else dropout.of_relu(x)) ** 2

    x = torch.randn(40, 30)
    found = []
    for again in (False, True):
        given_x = x.clone().requires_grad_()
        torch.manual_seed(6)
        (checkpoint(run, given_x, use_reentrant=False) if again else run(given_x)).sum().backward()
        found.append((given_x.grad, torch.rand(1)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_elements_are_counted_as_they_are_indexed_wherever_they_lie() -> None:
    x = torch.randn(30, 50)
    for relu in (False, True):
        plain = both(x, x.flip(0), 0.3, relu=relu)
        turned = both(x.T.contiguous().T, x.flip(0).T.contiguous().T, 0.3, relu=relu)
        assert all(torch.equal(one, other) for one, other in zip(plain, turned, strict=True))
        torch.manual_seed(11)
        summed = x.clone().requires_grad_()
        (dropped_relu if relu else dropped)(summed, 0.3).sum().backward()
        assert torch.equal(summed.grad, both(x, torch.ones_like(x), 0.3, relu=relu)[1])


def test_a_module_drops_by_it_in_training_alone_and_under_autocast() -> None:
    dropout, x = Dropout(0.2), torch.randn(100, 3)
    dropout.compiled = True
    assert dropout.eval()(x) is x
    assert torch.equal(dropout.of_relu(x), F.relu(x))
    dropout.train()
    torch.manual_seed(11)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dropout(x), both(x, x, 0.2, relu=False)[0])
    none = Dropout(0.0)
    none.compiled = True
    assert torch.equal(none.of_relu(x), F.relu(x))
    assert none(x) is x


def test_it_is_traced_on_tensors_that_hold_nothing() -> None:
    with FakeTensorMode():
        x = torch.empty(4, 6, dtype=torch.bfloat16, requires_grad=True)
        y = dropped_relu(dropped(x, 0.1), 0.1)
        y.sum().backward()
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert x.grad is not None
        assert compiled_mask((2, 3), new_seed(), 0.1).dtype == torch.int8
