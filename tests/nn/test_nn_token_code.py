"""Tokens that are read by code of our own, against the plain reader in float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrower_registers import built_for_narrower_registers, needs_narrower_registers

from txlplan.model import ModelConfig
from txlplan.model._tiles import SUMMED_ROWS
from txlplan.nn import Inference, TransformerXL, _token_code
from txlplan.nn._own_code import can_compile
from txlplan.nn._ring import KeyValueRing
from txlplan.nn._token_code import TokenCode, has_token_code, summed_product

pytestmark = pytest.mark.skipif(not can_compile("token"), reason="needs a C++ compiler that knows OpenMP")
MODEL = ModelConfig(id="t", n_layer=2, d_model=40, n_head=2, d_head=20, d_inner=72, vocab_size=90, tgt_len=4, mem_len=9)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return request.param


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    """Widths that are no vectors, or less than one; all that changes what a layer or the softmax does."""
    cutoffs, same_length = draw(st.sampled_from([(), (20,), (20, 50)])), draw(st.booleans())
    return dataclasses.replace(
        MODEL,
        n_layer=draw(st.integers(1, 3)),
        d_model=draw(st.sampled_from([6, 16, 42, 64])),
        n_head=draw(st.integers(1, 3)),
        d_head=draw(st.sampled_from([3, 8, 16, 20, 41, 64, 80])),
        d_inner=draw(st.sampled_from([5, 33, 96])),
        mem_len=draw(st.sampled_from([1, 9, 37] if same_length else [0, 1, 9, 37])),
        cutoffs=cutoffs,
        div_val=draw(st.sampled_from([1, 2])) if cutoffs else 1,
        norm=draw(st.sampled_from(["pre", "post"])),
        activation=draw(st.sampled_from(["relu", "gelu"])),
        d_embed=draw(st.sampled_from([None, 10])),
        tie_weights=draw(st.booleans()),
        untie_r=draw(st.booleans()),
        same_length=same_length,
        clamp_len=draw(st.sampled_from([None, 5])),
    )


@settings(max_examples=60, deadline=None)
@given(model=models(), rows=st.integers(1, SUMMED_ROWS), threads=st.integers(1, 3))
def test_a_token_is_the_plain_one_in_float64(model: ModelConfig, rows: int, threads: int) -> None:
    torch.set_num_threads(threads)
    assert_tokens(model, rows, None, 2e-5)


@pytest.mark.parametrize("rows", range(1, SUMMED_ROWS + 1))
def test_in_bf16_it_is_that_but_for_rounding(rows: int) -> None:
    assert_tokens(dataclasses.replace(MODEL, cutoffs=(20, 50), div_val=2), rows, torch.bfloat16, 3e-2)


@needs_narrower_registers
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_on_a_cpu_of_narrower_registers(dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    narrower = built_for_narrower_registers("token", tmp_path)
    monkeypatch.setattr(_token_code, "library", lambda _: narrower)
    for rows in (1, 3, SUMMED_ROWS):
        for d_head in (5, 8, 16, 20, 41):
            assert_tokens(dataclasses.replace(MODEL, d_head=d_head, cutoffs=(20,)), rows, dtype, 3e-2 if dtype else 2e-5)


def assert_tokens(model: ModelConfig, rows: int, dtype: torch.dtype | None, tolerance: float) -> None:
    """From empty memories until they have slid, with rows that have forgotten different parts of theirs."""
    torch.manual_seed(1)
    module = TransformerXL(model).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    exact = Inference(_double(module))
    fast = Inference(module, rows=rows, dtype=dtype, compiled=True)
    assert isinstance(fast._code, TokenCode)
    rings = [reader.ring(rows, longest=1) for reader in (exact, fast)]
    scale = max(1.0, float(exact.log_probabilities(torch.randn(rows, model.d_model).double()).abs().max()))
    for step in range(model.mem_len + 14):
        if step == model.mem_len:
            for ring in rings:
                ring.filled = [max(0, filled - 3 * row) for row, filled in enumerate(ring.filled)]
        tokens = torch.randint(0, model.vocab_size, (rows, 1))
        expected, found = (reader.read(tokens, ring)[:, 0] for reader, ring in zip((exact, fast), rings, strict=True))
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
        logs = [reader.log_probabilities(hidden) for reader, hidden in zip((exact, fast), (expected, found), strict=True)]
        torch.testing.assert_close(logs[1].double(), logs[0], rtol=tolerance, atol=tolerance * scale)


def _double(module: TransformerXL) -> TransformerXL:
    made = TransformerXL(module.config).double().eval()
    made.load_state_dict(module.state_dict())
    return made


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (3, 15), (7, 16), (50, 33), (129, 300)])
def test_a_product_is_torchs(threads: int, dtype: torch.dtype, outputs: int, inputs: int) -> None:
    """A bf16 weight is widened, so nothing is rounded."""
    torch.manual_seed(1)
    for rows in range(1, SUMMED_ROWS + 1):
        weight, x = torch.randn(outputs, inputs).to(dtype), torch.randn(rows, inputs)
        expected = x.double() @ weight.double().T
        torch.testing.assert_close(summed_product(weight, x)().double(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_no_number_is_no_number_in_all_that_depends_on_it() -> None:
    """One logit of a further cluster: all words of that cluster, and no other."""
    torch.manual_seed(1)
    module = TransformerXL(dataclasses.replace(MODEL, cutoffs=(20, 50))).eval()
    words = module.softmax.biases[0]
    with torch.no_grad():
        words[30] = float("nan")
    plain, fast = Inference(module), Inference(module, rows=2, compiled=True)
    hidden = torch.randn(2, MODEL.d_model)
    found, expected = (reader.log_probabilities(hidden).isnan() for reader in (fast, plain))
    assert expected[:, 20:50].all()
    assert not expected[:, :20].any()
    assert torch.equal(found, expected)


def test_a_ring_of_other_numbers_or_rows_is_not_read_by_the_code() -> None:
    reader = Inference(TransformerXL(MODEL).eval(), rows=2, compiled=True)
    other = KeyValueRing(MODEL, 2, longest=1, dtype=torch.bfloat16)
    with pytest.raises(AssertionError):
        reader._code.read(torch.zeros(2, MODEL.d_model), other)
    with pytest.raises(AssertionError):
        reader._code.read(torch.zeros(1, MODEL.d_model), reader.ring(2, longest=1))
    with pytest.raises(AssertionError):
        summed_product(torch.zeros(3, 20), torch.zeros(SUMMED_ROWS + 1, 20))


def test_a_default_dtype_changes_nothing() -> None:
    reader, hidden = Inference(TransformerXL(MODEL).eval(), rows=1, compiled=True), torch.randn(1, MODEL.d_model)
    expected = reader.log_probabilities(hidden)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(reader.log_probabilities(hidden), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_large_pages_hold_what_was_there() -> None:
    numbers = torch.arange(3 << 20, dtype=torch.float32)
    _token_code.keep_in_large_pages([numbers])
    assert torch.equal(numbers, torch.arange(3 << 20, dtype=torch.float32))


def test_what_the_code_takes() -> None:
    norm = torch.zeros(1)
    assert has_token_code(SUMMED_ROWS, torch.bfloat16, norm)
    assert not has_token_code(SUMMED_ROWS + 1, torch.bfloat16, norm)
    assert not has_token_code(1, torch.float64, norm.double())
    assert not has_token_code(1, torch.bfloat16, norm.bfloat16())


def test_more_rows_than_it_takes_are_read_by_what_torch_compiles() -> None:
    assert Inference(TransformerXL(MODEL).eval(), rows=SUMMED_ROWS + 1, compiled=True)._code is None
