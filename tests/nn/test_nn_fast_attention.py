"""The fast paths of attention against the reference: the same weights, inputs and dropout give the same numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from txlplan.model import ModelConfig, _tiles
from txlplan.model._tiles import blocks
from txlplan.nn import TransformerXL
from txlplan.nn._dropout import Dropout, keep_mask
from txlplan.nn._own_code import can_compile

torch.set_num_threads(1)
TILED = ["fast", *(["compiled"] if can_compile("attention") else [])]
BASE = ModelConfig(id="t", n_layer=2, d_model=16, n_head=4, d_head=6, d_inner=24, vocab_size=30, tgt_len=9, mem_len=12)


@st.composite
def configurations(draw: st.DrawFn) -> ModelConfig:
    mem_len = draw(st.sampled_from([0, 1, 5, 40, 200]))
    return replace(
        BASE,
        n_head=draw(st.integers(1, 5)),
        d_head=draw(st.integers(1, 9)),
        tgt_len=draw(st.sampled_from([1, 2, 7, 64, 191, 193, 260])),
        mem_len=mem_len,
        clamp_len=draw(st.sampled_from([None, 1, 30])),
        same_length=draw(st.booleans()) if mem_len else False,
        norm=draw(st.sampled_from(["post", "pre"])),
        untie_r=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        dropatt=draw(st.sampled_from([0.0, 0.3])),
    )


def build(config: ModelConfig, dtype: torch.dtype = torch.float32) -> TransformerXL:
    torch.manual_seed(5)
    module = TransformerXL(config).to(dtype).train()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def results(
    module: TransformerXL, batch: int, path: str, tokens_seed: int = 1, *, masks_of: str | None = None
) -> dict[str, Tensor]:
    """Hidden states, loss, new memory and every gradient, after the random numbers of one seed.

    `masks_of`: of which path dropout draws its masks; None: of `path`.
    """
    config = module.config
    generator = torch.Generator().manual_seed(tokens_seed)
    tokens = torch.randint(0, config.vocab_size, (batch, config.tgt_len), generator=generator)
    shape = (config.n_layer, batch, config.mem_len, config.d_model)
    memory = torch.randn(shape, generator=generator).to(next(module.parameters()).dtype)
    valid = torch.randint(0, config.mem_len + 1, (batch,), generator=generator)
    module.use_attention(path)  # type: ignore[arg-type]
    for each in module.modules():
        if isinstance(each, Dropout) and masks_of is not None:
            each.compiled = masks_of == "compiled"
    module.zero_grad()
    torch.manual_seed(7)
    hidden, new_memory = module(tokens, memory, valid)
    loss = module.nll(hidden, tokens).mean()
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}
    return {"hidden": hidden.detach(), "loss": loss.detach(), "memory": new_memory, **gradients}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Relative to the norm of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = distance(found[name], value)
        assert error <= tolerance, f"{name}: {error}"


@pytest.mark.no_cover
@settings(max_examples=40, deadline=None)
@given(config=configurations(), batch=st.integers(1, 3), seed=st.integers(0, 99), path=st.sampled_from(TILED))
def test_the_tiled_paths_equal_the_reference(config: ModelConfig, batch: int, seed: int, path: str) -> None:
    """To 1e-5, or where rounding alone is more (gradients that cancel out), to four times what it is on the reference path.

    What it is there is the most of eight runs: in fp32, where the errors of long sums add up, and in float64 with every
    operation off by a rounding, where none cancels another by the order of operations.
    """
    module = build(config)
    found = results(module, batch, path, seed)
    wide = copy.deepcopy(module).double()
    exact = results(wide, batch, "reference", seed, masks_of=path)
    far = {name: error for name, value in exact.items() if (error := distance(found[name], value)) > 1e-5}
    if not far:
        return
    rounded = [results(off_by_a_rounding(module, run), batch, "reference", seed, masks_of=path) for run in range(4)]
    for run in range(4):
        with OffByARounding(run):
            rounded.append(results(wide, batch, "reference", seed, masks_of=path))
    for name, error in far.items():
        accepted = max(distance(each[name], exact[name]) for each in rounded)
        assert error <= 4 * accepted, f"{name}: {error} where rounding alone gives {accepted}"


def distance(found: Tensor, value: Tensor) -> float:
    """Relative to the norm of the tensor."""
    return float((found - value).norm() / value.norm().clamp(min=1e-6))


def off_by_a_rounding(module: TransformerXL, run: int) -> TransformerXL:
    """The module itself for run 0, else with each weight off by up to a rounding of fp32."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(run)
    with torch.no_grad():
        for parameter in other.parameters() if run else ():
            parameter *= 1 + 2.0**-24 * (2 * torch.rand(parameter.shape, generator=generator) - 1)
    return other


class OffByARounding(TorchDispatchMode):
    """Inputs and results of every operation in float64 off by up to a rounding of fp32, by chance."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.is_view or func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        return tree_map(self._off, func(*tree_map(self._off, args), **(kwargs or {})))

    def _off(self, value: object) -> object:
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            return value
        noise = torch.rand(value.shape, generator=self._generator, dtype=torch.float64)
        return value * (1 + 2.0**-24 * (2 * noise - 1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"d_head": 8},
        {"norm": "pre", "untie_r": False},
        {"same_length": True, "clamp_len": 3},
        {"mem_len": 0},
        {"tgt_len": 1},
    ],
)
def test_the_fused_path_equals_the_reference(changes: dict) -> None:
    module = build(replace(BASE, **changes))
    assert_equal(results(module, 3, "fused"), results(module, 3, "reference"), 1e-5)


def test_the_tiled_path_equals_the_reference_in_float64_to_the_last_digits() -> None:
    module = build(replace(BASE, tgt_len=200, mem_len=30, dropatt=0.2), torch.float64)
    assert_equal(results(module, 2, "fast"), results(module, 2, "reference"), 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_as_near_to_fp32_as_the_reference_is(dtype: torch.dtype) -> None:
    module = build(replace(BASE, tgt_len=200, mem_len=30))
    for parameter in module.parameters():
        parameter.data.mul_(0.2)
    exact = results(module, 2, "reference")
    with torch.autocast("cpu", dtype):
        low, reference = results(module, 2, "fast"), results(module, 2, "reference")
    for name, value in exact.items():
        scale = value.abs().max()
        error, accepted = ((each[name] - value).abs().max() / scale for each in (low, reference))
        assert error <= 3 * accepted + 1e-3, f"{name}: {error} where the reference has {accepted}"


@pytest.mark.parametrize(("path", "whole"), [("reference", True), *((path, False) for path in TILED)])
def test_no_tensor_has_every_score_while_scoring(path: str, whole: bool) -> None:
    """In training the fast path keeps probabilities, a block at a time; without gradients nothing of T x S is ever made."""
    config = replace(BASE, tgt_len=256, mem_len=64, n_layer=1)
    module = build(config).eval()
    module.use_attention(path)  # type: ignore[arg-type]
    largest = largest_tensor(lambda: module(torch.zeros(8, 256, dtype=torch.int64), module.initial_memory(8), torch.tensor(64)))
    assert (largest >= 8 * 4 * 256 * 320) == whole


def largest_tensor(call: Callable[[], object]) -> int:
    """Elements of the largest tensor that any operation returned."""
    sizes = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(result.numel())
            return result

    with torch.no_grad(), Watch():
        call()
    return max(sizes)


def test_both_paths_have_one_state_dict() -> None:
    module = build(BASE)
    before = list(module.state_dict())
    module.use_attention("fast")
    assert list(module.state_dict()) == before


@given(queries=st.integers(1, 5000), mem_len=st.integers(0, 3000), heads=st.integers(1, 16), narrow=st.booleans())
@settings(max_examples=50, deadline=None)
def test_blocks_cover_every_query_once_and_the_first_sees_every_key(
    queries: int, mem_len: int, heads: int, narrow: bool
) -> None:
    cut = blocks(queries, mem_len, heads, narrow=narrow)
    assert cut[0].stop == queries
    assert cut[0].keys == mem_len + queries
    assert cut[-1].first == 0
    assert all(later.first == earlier.stop for later, earlier in pairwise(cut))
    assert all(heads % block.heads == 0 and block.keys == mem_len + block.stop and block.queries > 0 for block in cut)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_its_share_and_its_mean(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.full((1000, 1003), 2.0, requires_grad=True)
    y = Dropout(rate).train()(x)
    share = float((y != 0).float().mean())
    assert share == pytest.approx(1 - rate, abs=0.002)
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 2 / (1 - rate)])
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / 2)
    torch.manual_seed(0)
    assert torch.equal(Dropout(rate).train()(x), y)
    assert Dropout(rate).eval()(x) is x


def test_a_rate_above_all_numbers_keeps_nothing() -> None:
    assert not keep_mask((1000,), 1 - 1e-6, torch.device("cpu")).any()


def test_dropout_is_by_our_own_code_where_attention_is() -> None:
    module = build(replace(BASE, dropout=0.1, dropatt=0.1))
    for path in ("reference", "compiled", "fast", "compiled", "fused"):
        module.use_attention(path)  # type: ignore[arg-type]
        assert {each.compiled for each in module.modules() if isinstance(each, Dropout)} == {path == "compiled"}


def gradients_in(dtype: torch.dtype, path: str, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = TransformerXL(replace(BASE, d_model=32, d_inner=64, d_head=8, norm="pre"))
    model.use_attention(path)  # type: ignore[arg-type]
    tokens, targets = torch.randint(0, 30, (2, 4, 9)).unbind()
    memory = torch.randn(model.initial_memory(4).shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        model.nll(model(tokens, memory, torch.tensor(12))[0], targets).mean().backward()
    return {name: parameter.grad.double().flatten() for name, parameter in model.named_parameters()}  # type: ignore[union-attr]


@pytest.mark.parametrize(("path", "block"), [("reference", 256), ("fast", 256), ("fast", 2)])
def test_gradients_in_bf16_are_those_of_fp32_but_for_rounding(path: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over seeds they lean neither way by more than a rounding of bf16 (2^-8, and 4 standard errors), and scatter little."""
    monkeypatch.setattr(_tiles, "_NARROW_BLOCK_QUERIES", block)
    leanings: dict[str, list[float]] = {}
    for seed in range(16):
        wide, narrow = (gradients_in(dtype, path, seed) for dtype in (torch.float32, torch.bfloat16))
        for name, exact in wide.items():
            leanings.setdefault(name, []).append(float(narrow[name] @ exact / (exact @ exact)) - 1)
            assert (narrow[name] - exact).norm() < 0.1 * exact.norm(), name
    for name, seen in leanings.items():
        lean = torch.tensor(seen)
        assert lean.mean().abs() < 2**-8 + 4 * lean.std() / len(seen) ** 0.5, name
        assert lean.mean().abs() < 2**-6, name
