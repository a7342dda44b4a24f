"""Reading with kept keys and values against the reference module, which keeps hidden states and projects them again."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.model import ModelConfig
from txlplan.model._tiles import SUMMED_ROWS
from txlplan.nn import Inference, TransformerXL
from txlplan.nn._head import Head
from txlplan.nn._kept_attention import attend_token, attend_token_in_place
from txlplan.nn._own_code import can_compile

torch.set_num_threads(1)


@st.composite
def models(draw: Any) -> ModelConfig:
    adaptive = draw(st.sampled_from([{}, {"cutoffs": (20, 40)}, {"cutoffs": (20, 40), "div_val": 2}]))
    same_length = draw(st.booleans())
    return ModelConfig(
        id="drawn",
        n_layer=draw(st.integers(1, 3)),
        d_model=draw(st.sampled_from([8, 24])),
        d_embed=draw(st.sampled_from([None, 16])),
        n_head=draw(st.integers(1, 3)),
        d_head=draw(st.sampled_from([4, 5])),
        d_inner=16,
        vocab_size=60,
        tgt_len=draw(st.integers(1, 9)),
        mem_len=draw(st.integers(1 if same_length else 0, 14)),
        same_length=same_length,
        clamp_len=draw(st.sampled_from([None, 1, 5])),
        norm=draw(st.sampled_from(["pre", "post"])),
        activation=draw(st.sampled_from(["relu", "gelu"])),
        untie_r=draw(st.booleans()),
        tie_weights=draw(st.booleans()),
        **adaptive,
    )


def loud(config: ModelConfig, seed: int = 1) -> TransformerXL:
    """Weights large enough for the scores to matter: near zero every key weighs the same, and errors hide."""
    torch.manual_seed(seed)
    model = TransformerXL(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1 if "norm" in name else 0.3)
    return model


def reader(module: TransformerXL, rows: int, path: Path) -> Inference:
    """On a CPU, which reads as CUDA does where the module attends so."""
    module.use_attention(path)
    made = Inference(module, rows=rows)
    module.use_attention("reference")
    return made


Path = Literal["fast", "fused", "compiled"]
PATHS = st.sampled_from(["fast", "fused"])


@given(model=models(), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), rows=st.integers(1, 3), path=PATHS)
@settings(max_examples=40, deadline=None)
def test_segments_of_any_length_read_as_the_reference_reads_them(
    model: ModelConfig, lengths: list[int], rows: int, path: Path
) -> None:
    module = loud(model).double()
    fast = reader(module, rows, path)
    ring = fast.ring(rows, longest=max(lengths))
    memory, valid = module.initial_memory(rows, dtype=torch.float64), torch.tensor(0)
    for length in lengths:
        tokens, targets = torch.randint(0, 60, (2, rows, length))
        with torch.no_grad():
            expected, memory = module(tokens, memory, valid)
            valid = module.advance(valid, length)
            wanted = module.nll(expected, targets), module.log_probabilities(expected[:, -1])
        hidden = fast.read(tokens, ring)
        torch.testing.assert_close(hidden, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close((fast.nll(hidden, targets), fast.log_probabilities(hidden[:, -1])), wanted)
        assert ring.filled == [int(valid)] * rows


@given(model=models(), prompts=st.lists(st.integers(1, 20), min_size=1, max_size=3), path=PATHS)
@settings(max_examples=20, deadline=None)
def test_rows_with_unequal_memories_go_on_as_each_does_alone(model: ModelConfig, prompts: list[int], path: Path) -> None:
    """Through single tokens and through segments, past the end of the buffer."""
    module = loud(model).double()
    fast = reader(module, len(prompts), path)
    alone = [fast.ring(1, longest=20) for _ in prompts]
    for ring, length in zip(alone, prompts, strict=True):
        fast.read(torch.randint(0, 60, (1, length)), ring)
    together = fast.ring(len(prompts), longest=4)
    for number, ring in enumerate(alone):
        together.remember(number, ring)
    for length in (1, 1, 4, *[1] * 18, 3, 1):
        tokens = torch.randint(0, 60, (len(prompts), length))
        expected = torch.cat([fast.read(row[None], ring) for row, ring in zip(tokens, alone, strict=True)])
        torch.testing.assert_close(fast.read(tokens, together), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not can_compile("attention"), reason="needs a C++ compiler that knows OpenMP")
@given(
    model=models(),
    prompts=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    lengths=st.lists(st.integers(2, 9), min_size=1),
)
@settings(max_examples=30, deadline=None)
def test_segments_by_our_own_code_read_as_by_torch(model: ModelConfig, prompts: list[int], lengths: list[int]) -> None:
    """In single precision, of rows whose memories are not equally filled, past the end of the buffer."""
    module = loud(model)
    readers = [reader(module, len(prompts), "compiled"), reader(copy.deepcopy(module).double(), len(prompts), "fast")]
    rings = [each.ring(len(prompts), longest=max(lengths)) for each in readers]
    for number, length in enumerate(prompts):
        tokens = torch.randint(0, 60, (1, length))
        for each, ring in zip(readers, rings, strict=True):
            alone = each.ring(1, longest=20)
            each.read(tokens, alone)
            ring.remember(number, alone)
    for length in lengths:
        tokens = torch.randint(0, 60, (len(prompts), length))
        found, exact = (each.read(tokens, ring) for each, ring in zip(readers, rings, strict=True))
        assert off(found, exact.float()) < 1e-4 * max(1.0, float(exact.abs().max()))


def config(**changes: Any) -> ModelConfig:
    base = ModelConfig(
        id="small",
        n_layer=3,
        d_model=64,
        n_head=4,
        d_head=16,
        d_inner=96,
        vocab_size=200,
        cutoffs=(50, 100),
        tgt_len=16,
        mem_len=32,
    )
    return dataclasses.replace(base, **changes)


def test_prepacked_products_in_single_precision_are_within_a_hundred_thousandth() -> None:
    module = loud(config())
    fast = Inference(module, rows=2)
    ring = fast.ring(2, longest=16)
    memory, valid = module.initial_memory(2), torch.tensor(0)
    for length in (16, 16, 16, 1, 1, 1):
        tokens = torch.randint(0, 200, (2, length))
        with torch.no_grad():
            expected, memory = module(tokens, memory, valid)
        valid = module.advance(valid, length)
        hidden = fast.read(tokens, ring)
        torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            fast.log_probabilities(hidden[:, -1]), module.log_probabilities(expected[:, -1]).detach(), rtol=1e-5, atol=1e-4
        )


OWN_BF16 = [(16, "compiled")] if can_compile("attention_bf16") else []


@pytest.mark.parametrize(("length", "path"), [(1, "fast"), (16, "fast"), *OWN_BF16])
def test_narrow_weights_read_as_autocast_does(length: int, path: Path) -> None:
    """As near to full precision as the reference under autocast is, within its own error."""
    module = loud(config())
    module.use_attention(path)
    fast = Inference(module, rows=2, dtype=torch.bfloat16)
    module.use_attention("reference")
    ring = fast.ring(2, longest=16)
    memory, valid = module.initial_memory(2), torch.tensor(0)
    cast_memory = memory
    for _ in range(4):
        tokens, targets = torch.randint(0, 200, (2, 2, length))
        with torch.no_grad():
            exact, memory = module(tokens, memory, valid)
            with torch.autocast("cpu", torch.bfloat16):
                cast, cast_memory = module(tokens, cast_memory, valid)
        valid = module.advance(valid, length)
        hidden = fast.read(tokens, ring)
        assert off(hidden, exact) < 1.5 * off(cast, exact)
    with torch.no_grad():
        wanted = module.nll(exact, targets)
        with torch.autocast("cpu", torch.bfloat16):
            of_autocast = module.nll(cast, targets)
    assert off(fast.nll(hidden, targets), wanted) < 1.5 * off(of_autocast, wanted)


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 6)),
    slid=st.integers(0, 3),
    unfilled=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_tokens_attend_in_place_as_by_products(sizes: tuple[int, int, int, int], slid: int, unfilled: int) -> None:
    """Over windows of longer buffers, of which rows may not have filled all."""
    rows, heads, keys, width = sizes
    q_BHK, u_HK, v_HK, r_HSK = (
        torch.randn(*shape, dtype=torch.float64)
        for shape in ((rows, heads, width), (heads, width), (heads, width), (heads, keys, width))
    )
    keys_BHSK, values_BHSK = torch.randn(2, rows, heads, keys + 3, width, dtype=torch.float64)[:, :, :, slid : slid + keys]
    mask_BS = torch.zeros(rows, keys, dtype=torch.float64)
    mask_BS[-1, : min(unfilled, keys - 1)] = float("-inf")
    for mask in (None, mask_BS):
        arguments = (q_BHK, u_HK, v_HK, keys_BHSK, values_BHSK, r_HSK, mask)
        torch.testing.assert_close(attend_token_in_place(*arguments), attend_token(*arguments), rtol=1e-9, atol=1e-9)


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root of the mean squared error."""
    return float((got.float() - wanted).pow(2).mean().sqrt())


def test_a_long_text_allocates_nothing_new() -> None:
    module = loud(config(mem_len=8))
    fast = Inference(module, rows=1)
    ring = fast.ring(1, longest=1)
    held = ring.nbytes
    window = {ring.windows(0, 1)[0][0].untyped_storage().data_ptr()}
    for token in range(300):
        fast.read(torch.tensor([[token % 200]]), ring)
        window.add(ring.windows(8, 0)[0][0].untyped_storage().data_ptr())
    assert ring.nbytes == held == 2 * 3 * 4 * 16 * (8 + 4) * 4
    assert len(window) == 1


def head_of(module: TransformerXL, biases: torch.Tensor) -> None:
    """Biases of the head's words and of the further clusters; the logits of a hidden state of zeros are these."""
    words = module.softmax.biases[0][: module.config.cluster_sizes[0]]
    words.data.copy_(biases[: len(words)])
    module.softmax.cluster_bias.data.copy_(biases[len(words) :])


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: nothing is compiled")
NARROW = config(n_layer=2, d_model=16, n_head=2, d_head=5, d_inner=25, mem_len=6)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@needs_compiler
def test_compiled_tokens_are_those_of_the_plain_path() -> None:
    """From unfilled memory over the end of the buffer; one compilation serves all layers."""
    assert_compiled_tokens(dataclasses.replace(NARROW, same_length=True), rows=1, prompt=2)


@needs_compiler
def test_compiled_tokens_for_two_threads(two_threads: None) -> None:
    """And a softmax of several clusters, with projections."""
    assert_compiled_tokens(dataclasses.replace(NARROW, cutoffs=(20, 60), div_val=2), rows=3, prompt=2)


@needs_compiler
def test_compiled_tokens_of_more_rows_than_are_summed(two_threads: None) -> None:
    """Their outputs do not divide by two: one block of them is padded."""
    assert_compiled_tokens(NARROW, rows=SUMMED_ROWS + 1, prompt=2)


@needs_compiler
def test_compiled_tokens_follow_a_prompt_that_looks_further_back_than_a_token_does() -> None:
    """Its distances are more than those of a token, and are kept from then on."""
    assert_compiled_tokens(dataclasses.replace(NARROW, tgt_len=16), rows=1, prompt=16)


@needs_compiler
def test_compiled_tokens_of_a_model_without_memory() -> None:
    assert_compiled_tokens(dataclasses.replace(NARROW, mem_len=0), rows=2, prompt=9)


def assert_compiled_tokens(
    model: ModelConfig, *, rows: int, prompt: int, dtype: torch.dtype | None = None, tolerance: float = 1e-5
) -> None:
    """Against plain ones in fp32, after prompts of which every other is longer than the memory."""
    module = loud(model)
    plain, compiled = Inference(module), Inference(module, rows=rows, dtype=dtype, compiled=True)
    rings = [reader.ring(rows, longest=1) for reader in (plain, compiled)]
    for row in range(rows):
        text = torch.randint(0, 200, (1, prompt + 3 if row % 2 == 0 else prompt - 1))
        for reader, together in zip((plain, compiled), rings, strict=True):
            alone = reader.ring(1, longest=prompt)
            for segment in text.split(prompt, dim=1):
                reader.read(segment, alone)
            together.remember(row, alone)
    for _ in range(12):
        tokens = torch.randint(0, 200, (rows, 1))
        expected, got = plain.read(tokens, rings[0]), compiled.read(tokens, rings[1])
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        logs = [reader.log_probabilities(expected[:, -1]) for reader in (plain, compiled)]
        torch.testing.assert_close(logs[1].float(), logs[0], rtol=tolerance, atol=tolerance)


@needs_compiler
@pytest.mark.parametrize("rows", [2, SUMMED_ROWS + 1])
def test_compiled_tokens_in_bf16_are_those_of_fp32_but_for_rounding(rows: int) -> None:
    """Of few rows as sums; of more by the library, whose uncompiled products are packed where the CPU has units for bf16."""
    assert_compiled_tokens(NARROW, rows=rows, prompt=2, dtype=torch.bfloat16, tolerance=5e-2)


def test_tokens_in_bf16_meet_few_lengths_of_memory_as_it_fills_and_read_what_is_filled() -> None:
    config = ModelConfig(id="t", n_layer=2, d_model=16, n_head=2, d_head=8, d_inner=24, vocab_size=40, tgt_len=8, mem_len=150)
    model = TransformerXL(config).eval()
    narrow, wide = (Inference(model, rows=2, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    rings = [each.ring(2, longest=1) for each in (narrow, wide)]
    words = torch.randint(0, 40, (170, 2, 1), generator=torch.Generator().manual_seed(3))
    lengths = set()
    for word_B1 in words:
        keys = narrow._slots_read(max(rings[0].filled)) + 1
        lengths.add(keys)
        assert keys > rings[0].filled[0]
        found, expected = (each.read(word_B1, ring) for each, ring in zip((narrow, wide), rings, strict=True))
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert lengths == {1, 65, 129, 151}


CLUSTERS = config(n_layer=1, cutoffs=(50, 100, 198), div_val=2)
readers = pytest.mark.parametrize(
    ("compiled", "dtype", "rows"),
    [
        pytest.param(compiled, dtype, rows, marks=[needs_compiler] * compiled)
        for compiled in (False, True)
        for dtype in (torch.float32, torch.bfloat16)
        for rows in (1, 3)
    ],
)


def with_and_without_others(
    module: TransformerXL, hidden_BD: torch.Tensor, likeliest: int, *, compiled: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities where the likeliest are wanted, and where all are."""
    made = Inference(module, rows=len(hidden_BD), dtype=dtype, compiled=compiled)
    assert bool(made._code) == compiled
    return made.log_probabilities(hidden_BD, likeliest=likeliest), made.log_probabilities(hidden_BD)


@readers
def test_clusters_without_a_likeliest_word_are_left_out_and_nothing_else_changes(
    compiled: bool, dtype: torch.dtype, rows: int, two_threads: None
) -> None:
    """Whole clusters, for all rows, exactly where so many of the head's words are likelier than the cluster in each of them."""
    module, bounds = loud(CLUSTERS), [0, 50, 100, 198, 200]
    for likeliest in (1, 3, 50, 51):
        left_out = []
        for _ in range(12):
            head_of(module, 2 * torch.randn(53) + (torch.arange(53) >= 50) * 12 * torch.randn(53))
            hidden = torch.randn(rows, CLUSTERS.d_model)
            found, full = with_and_without_others(module, hidden, likeliest, compiled=compiled, dtype=dtype)
            clusters = [each.logsumexp(1) for each in full.split([50, 50, 98, 2], dim=1)]
            for cluster in (1, 2, 3):
                likelier = (full[:, :50] > clusters[cluster][:, None]).sum(1)
                left_out.append(bool((likelier >= likeliest).all()))
                of_cluster = slice(bounds[cluster], bounds[cluster + 1])
                expected = torch.full_like(full, float("-inf")) if left_out[-1] else full
                assert torch.equal(found[:, of_cluster], expected[:, of_cluster])
            wanted = full >= full.topk(likeliest).values[:, -1:]
            assert torch.equal(found[wanted], full[wanted])
            assert torch.equal(found[:, :50], full[:, :50])
        assert any(left_out) == (likeliest <= 50)
        assert not all(left_out)


@readers
def test_words_nearly_as_likely_as_the_clusters_are_not_lost(
    compiled: bool, dtype: torch.dtype, rows: int, two_threads: None
) -> None:
    """A cluster with all of its probability in one word, equal to the likeliest of the head or some roundings from it."""
    module, hidden = loud(CLUSTERS), torch.zeros(rows, CLUSTERS.d_model)
    module.softmax.biases[3].data.copy_(torch.tensor([-90.0, 300.7]))
    from_cluster = []
    for draw in range(200):
        biases = 3 * torch.randn(53)
        near = biases[:50].max().to(dtype).float() * (1 + (draw % 9 - 4) * torch.finfo(dtype).eps / 2)
        head_of(module, torch.cat([biases[:50], torch.tensor([-20.0, -20.0, near])]))
        found, full = with_and_without_others(module, hidden, 1, compiled=compiled, dtype=dtype)
        assert torch.equal(found.argmax(1), full.argmax(1))
        likeliest = full == full.amax(1, keepdim=True)
        assert torch.equal(found[likeliest], full[likeliest])
        from_cluster.append(bool(likeliest[0, 199]))
    assert 0 < sum(from_cluster) < 200


@readers
@pytest.mark.parametrize("where", ["hidden", "word", "cluster"])
def test_what_is_no_number_leaves_nothing_out(compiled: bool, dtype: torch.dtype, rows: int, where: str) -> None:
    module, hidden, biases = loud(CLUSTERS), torch.randn(rows, CLUSTERS.d_model), torch.zeros(53)
    biases[50:] = -60.0
    head_of(module, biases)
    found, full = with_and_without_others(module, hidden, 1, compiled=compiled, dtype=dtype)
    assert found[:, 50:].isneginf().all()
    assert full.isfinite().all()
    if where == "hidden":
        hidden[0, 7] = float("nan")
    else:
        biases[{"word": 20, "cluster": 52}[where]] = float("nan")
        head_of(module, biases)
    found, full = with_and_without_others(module, hidden, 1, compiled=compiled, dtype=dtype)
    assert full[0].isnan().all()
    assert torch.equal(found.nan_to_num(nan=1.0), full.nan_to_num(nan=1.0))


def test_no_device_but_a_cpu_is_asked_which_clusters_to_leave_out() -> None:
    """Tensors on this one have no numbers: what asks for one raises."""
    module = TransformerXL(CLUSTERS).to("meta")
    outputs = [module.softmax.outputs(cluster, module.embedding) for cluster in range(CLUSTERS.n_clusters)]
    hidden = torch.empty(2, CLUSTERS.d_model, device="meta")
    assert Head(CLUSTERS, outputs, rows=1).log_probabilities(hidden, likeliest=1).shape == (2, CLUSTERS.vocab_size)
