"""Properties of the module that need no oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from txlplan.model import ModelConfig, _tiles, models, parameter_shapes
from txlplan.nn import TransformerXL, _softmax
from txlplan.nn._own_code import can_compile

torch.set_num_threads(1)
OWN_CODE = [("compiled", bf16) for bf16 in (False, True) if can_compile("attention_bf16" if bf16 else "attention")]
CONFIG = ModelConfig(id="t", n_layer=3, d_model=16, n_head=2, d_head=8, d_inner=24, vocab_size=40, tgt_len=6, mem_len=24)
ADAPTIVE = replace(CONFIG, cutoffs=(10, 20), div_val=2, tie_projections=(False, True, True))
EMPTY = torch.zeros((), dtype=torch.int64)


def build(config: ModelConfig, dtype: torch.dtype = torch.float64) -> TransformerXL:
    torch.manual_seed(5)
    module = TransformerXL(config).to(dtype).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def words(config: ModelConfig, batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def fed_in_segments(module: TransformerXL, tokens: Tensor, lengths: list[int], dtype: torch.dtype) -> Tensor:
    memory, valid, hidden = module.initial_memory(len(tokens), dtype=dtype), EMPTY, []
    for segment in tokens.split(lengths, dim=1):
        out, memory = module(segment, memory, valid)
        valid = module.advance(valid, segment.shape[1])
        hidden.append(out)
    return torch.cat(hidden, dim=1)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    norm=st.sampled_from(["post", "pre"]),
    clamp_len=st.sampled_from([None, 5]),
)
def test_segments_with_long_memory_equal_the_whole_text(lengths: list[int], norm: str, clamp_len: int | None) -> None:
    module = build(replace(CONFIG, mem_len=32, norm=norm, clamp_len=clamp_len))
    tokens = words(CONFIG, 2, sum(lengths))
    with torch.no_grad():
        whole, _ = module(tokens, module.initial_memory(2, dtype=torch.float64), EMPTY)
        torch.testing.assert_close(fed_in_segments(module, tokens, lengths, torch.float64), whole, rtol=1e-9, atol=1e-11)


def test_segments_equal_the_whole_text_in_fp32() -> None:
    module = build(CONFIG, torch.float32)
    tokens = words(CONFIG, 2, 24)
    with torch.no_grad():
        whole, _ = module(tokens, module.initial_memory(2), EMPTY)
        torch.testing.assert_close(fed_in_segments(module, tokens, [6] * 4, torch.float32), whole, rtol=1e-4, atol=1e-5)


def test_one_layer_with_same_length_sees_exactly_mem_len_keys() -> None:
    """With a window of 4, the state at position t depends on tokens t-3 … t and on no other."""
    module = build(replace(CONFIG, n_layer=1, mem_len=4, tgt_len=12, same_length=True))
    tokens = words(CONFIG, 1, 12)
    with torch.no_grad():
        before, _ = module(tokens, module.initial_memory(1, dtype=torch.float64), EMPTY)
        changed = tokens.clone()
        changed[0, 5] = (changed[0, 5] + 1) % CONFIG.vocab_size
        after, _ = module(changed, module.initial_memory(1, dtype=torch.float64), EMPTY)
    differs = (before != after).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [5, 6, 7, 8]


def test_unfilled_memory_is_not_attended_to() -> None:
    module = build(CONFIG)
    tokens, valid = words(CONFIG, 2, 6), torch.tensor([0, 9])
    memory = torch.randn(CONFIG.n_layer, 2, CONFIG.mem_len, CONFIG.d_model, dtype=torch.float64)
    garbage = memory.clone()
    garbage[:, 0] = 1e3
    garbage[:, 1, :-9] = 1e3
    with torch.no_grad():
        torch.testing.assert_close(module(tokens, memory, valid)[0], module(tokens, garbage, valid)[0], rtol=0, atol=0)
        each = [module(tokens[b : b + 1], memory[:, b : b + 1], valid[b])[0] for b in range(2)]
        torch.testing.assert_close(torch.cat(each), module(tokens, memory, valid)[0])


@pytest.mark.parametrize(("mem_len", "tokens"), [(0, 6), (4, 6), (6, 6), (24, 6), (24, 1)])
def test_memory_holds_the_last_inputs_of_each_layer_without_gradient(mem_len: int, tokens: int) -> None:
    module = build(replace(CONFIG, mem_len=mem_len), torch.float32)
    text = words(CONFIG, 2, tokens)
    old = torch.randn(CONFIG.n_layer, 2, mem_len, CONFIG.d_model)
    _, new = module(text, old.requires_grad_(), EMPTY)
    assert new.shape == (CONFIG.n_layer, 2, mem_len, CONFIG.d_model)
    assert not new.requires_grad
    assert new.untyped_storage().nbytes() == new.numel() * 4
    kept = max(mem_len - tokens, 0)
    torch.testing.assert_close(new[:, :, :kept], old.detach()[:, :, mem_len - kept :])
    recent = min(mem_len, tokens)
    torch.testing.assert_close(new[0, :, mem_len - recent :], module.embedding(text)[:, tokens - recent :].detach())


def test_memory_keeps_the_dtype_it_came_in() -> None:
    module = build(CONFIG, torch.float32)
    _, memory = module(words(CONFIG, 2, 6), module.initial_memory(2, dtype=torch.bfloat16), EMPTY)
    assert memory.dtype == torch.bfloat16


def test_advance_counts_up_to_mem_len() -> None:
    module = build(CONFIG)
    valid = EMPTY
    counted = []
    for _ in range(5):
        valid = module.advance(valid)
        counted.append(int(valid))
    assert counted == [6, 12, 18, 24, 24]
    assert module.advance(torch.tensor([0, 23]), 2).tolist() == [2, 24]


@pytest.mark.parametrize("config", [CONFIG, replace(ADAPTIVE, norm="pre", untie_r=False)], ids=["post", "pre-adaptive"])
@pytest.mark.parametrize(("path", "bf16"), [("reference", False), ("fast", False), ("fast", True), *OWN_CODE])
@pytest.mark.parametrize("block", [256, 2])
def test_activation_checkpointing_gives_the_same_gradients_with_dropout(
    config: ModelConfig, path: Any, bf16: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in several blocks of queries, whose tiles share buffers."""
    monkeypatch.setattr(_tiles, "_BLOCK_QUERIES", block)
    monkeypatch.setattr(_tiles, "_NARROW_BLOCK_QUERIES", block)
    module = build(replace(config, dropout=0.3, dropatt=0.2), torch.float32).train()
    module.use_attention(path)
    tokens, targets = words(config, 2, 6), words(config, 2, 6, seed=1)

    def gradients(mode: str, layers: int | None = None) -> list[Tensor]:
        module.activation_checkpointing, module.checkpointed_layers = mode, layers
        module.zero_grad()
        torch.manual_seed(9)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden, _ = module(tokens, module.initial_memory(2), EMPTY)
            nll = module.nll(hidden, targets)
        nll.mean().backward()
        return [parameter.grad.clone() for parameter in module.parameters()] + [torch.rand(1)]

    plain = gradients("none")
    for mode in ("attention", "feed-forward", "full"):
        for layers in (None, 1):
            again = gradients(mode, layers)
            assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True)), (mode, layers)


@pytest.mark.parametrize("path", ["reference", "fast", *sorted({path for path, _ in OWN_CODE})])
def test_activation_checkpointing_saves_less(path: str) -> None:
    """And of one layer less than of all. The scores of the fast path are none of what `attention` leaves to be kept; nor is its
    mask, which code of our own keeps in no case."""
    config = replace(CONFIG, tgt_len=40, mem_len=80, dropatt=0.1)
    saved = {}
    for mode, layers in (("none", None), ("attention", 1), ("attention", None), ("feed-forward", None), ("full", None)):
        module = build(config, torch.float32).train()
        module.use_attention(path)
        module.activation_checkpointing, module.checkpointed_layers = mode, layers
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden, _ = module(words(config, 8, 40), module.initial_memory(8), EMPTY)
            del hidden
        saved[mode, layers] = sum(kept.values())
    scores, each = 8 * config.n_head * 40 * 120 * config.n_layer, 4 if path == "compiled" else 5
    assert saved["full", None] < saved["none", None] / 2
    assert saved["none", None] - saved["attention", None] >= scores * each - 8 * 40 * config.n_head * 8
    assert saved["attention", None] < saved["attention", 1] < saved["none", None]
    inner = 4 * 8 * 40 * config.d_inner * config.n_layer
    assert saved["none", None] - saved["feed-forward", None] >= inner / 2


@pytest.mark.parametrize("name", sorted(models.paths()))
def test_parameter_shapes_are_those_of_the_module(name: str) -> None:
    config = models.get(name)
    with torch.device("meta"):
        module = TransformerXL(config)
    state = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert list(state.items()) == list(parameter_shapes(config).items())


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE, replace(ADAPTIVE, div_val=1, tie_weights=False)])
def test_probabilities_sum_to_one_and_nll_reads_them(config: ModelConfig) -> None:
    module = build(config)
    hidden, targets = torch.randn(2, 5, config.d_model, dtype=torch.float64), words(config, 2, 5)
    log_probabilities = module.log_probabilities(hidden.flatten(0, 1))
    assert log_probabilities.shape == (10, config.vocab_size)
    torch.testing.assert_close(log_probabilities.exp().sum(dim=1), torch.ones(10, dtype=torch.float64))
    gathered = -log_probabilities.gather(1, targets.reshape(-1, 1)).view(2, 5)
    torch.testing.assert_close(module.nll(hidden, targets), gathered)


def test_every_parameter_gets_a_gradient_when_a_cluster_has_no_target() -> None:
    module = build(ADAPTIVE, torch.float32)
    frequent = torch.zeros(2, 6, dtype=torch.int64)
    hidden, _ = module(frequent, module.initial_memory(2), EMPTY)
    module.nll(hidden, frequent).mean().backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("found", [0, 1, 32, 33])
def test_products_of_a_cluster_in_bf16_have_rows_in_a_number_that_comes_again(
    found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the loss and its gradients are those of the rows that were found, each computed for itself."""
    module = build(ADAPTIVE, torch.float32)
    hidden, targets = torch.randn(2, 30, ADAPTIVE.d_model, requires_grad=True), torch.zeros(2, 30, dtype=torch.int64)
    targets.view(-1)[:found] = words(ADAPTIVE, 1, found).flatten() % 10 + 20

    most: list[float] = []
    monkeypatch.setattr(_softmax, "loss_chunks", lambda rows, *_, **__: most.append(rows) or 1)

    def gradients(*, made_up: bool) -> tuple[Tensor, ...]:
        most.clear()
        module.softmax.as_on_gpu = not made_up
        with torch.autocast("cpu", torch.bfloat16), RowsOfProducts() as seen:
            nll = module.nll(hidden, targets)
        assert (seen.rows <= {0, 32, 60, 64}) == (made_up or found in (0, 32))
        assert max(most) == max(60, *seen.rows), "what is cut into chunks is all of them"
        return nll.detach(), *torch.autograd.grad(nll.sum(), [hidden, *module.softmax.parameters()])

    for found_X, expected_X in zip(gradients(made_up=True), gradients(made_up=False), strict=True):
        torch.testing.assert_close(found_X, expected_X, rtol=2**-6, atol=2**-6 * float(expected_X.abs().max()))


class RowsOfProducts(TorchDispatchMode):
    """How many rows the products had that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.rows.add(args[-2].shape[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE], ids=["full-softmax", "adaptive"])
def test_the_loss_in_bf16_runs_on_fake_tensors_and_without_clusters_on_meta(config: ModelConfig) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    def shape(device: str) -> torch.Size:
        with torch.device(device), torch.autocast("cpu", torch.bfloat16):
            hidden, targets = torch.zeros(2, 6, config.d_model), torch.zeros(2, 6, dtype=torch.int64)
            return TransformerXL(config).nll(hidden, targets).shape

    with FakeTensorMode(shape_env=ShapeEnv()):
        assert shape("cpu") == (2, 6)
    if not config.cutoffs:
        assert shape("meta") == (2, 6)


def test_the_gradient_of_the_cluster_vectors_keeps_no_other_gradient_alive() -> None:
    module = build(ADAPTIVE, torch.float32)
    module.nll(torch.randn(2, 6, ADAPTIVE.d_model), words(ADAPTIVE, 2, 6)).mean().backward()
    gradient = module.softmax.cluster_weight.grad
    assert gradient is not None
    assert gradient.untyped_storage().nbytes() == gradient.nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE], ids=["full-softmax", "adaptive"])
def test_autocast_stays_near_fp32_and_returns_fp32_losses(config: ModelConfig, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = TransformerXL(config)
    tokens, targets = words(config, 2, 6), words(config, 2, 6, seed=1)

    def loss() -> Tensor:
        hidden, _ = module(tokens, module.initial_memory(2), EMPTY)
        return module.nll(hidden, targets)

    with torch.autocast("cpu", dtype):
        low = loss()
    low.mean().backward()
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE], ids=["full-softmax", "adaptive"])
def test_forward_exports_with_static_shapes(config: ModelConfig) -> None:
    module = build(replace(config, n_layer=1), torch.float32)
    arguments = (words(config, 2, 6), module.initial_memory(2), torch.tensor(5))
    exported = torch.export.export(module, arguments).module()
    for name, valid in (("same", 5), ("another", 17)):
        expected, memory = module(*arguments[:2], torch.tensor(valid))
        hidden, exported_memory = exported(*arguments[:2], torch.tensor(valid))
        torch.testing.assert_close(hidden, expected, msg=name)
        torch.testing.assert_close(exported_memory, memory)


def test_forward_compiles_as_one_graph_with_checkpointing() -> None:
    module = build(replace(ADAPTIVE, n_layer=1), torch.float32).train()
    module.activation_checkpointing = "full"
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    arguments = (words(ADAPTIVE, 2, 6), module.initial_memory(2), torch.tensor(5))
    torch.testing.assert_close(compiled(*arguments)[0], module(*arguments)[0])


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE], ids=["full-softmax", "adaptive"])
def test_training_step_runs_on_fake_tensors(config: ModelConfig) -> None:
    """How many targets each cluster has is not known of fake tensors: an adaptive softmax needs a shape environment."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with FakeTensorMode(shape_env=ShapeEnv() if config.cutoffs else None):
        module = TransformerXL(config)
        tokens = torch.zeros(2, 6, dtype=torch.int64)
        hidden, memory = module(tokens, module.initial_memory(2), torch.zeros((), dtype=torch.int64))
        module.nll(hidden, tokens).mean().backward()
        assert memory.shape == (3, 2, 24, 16)
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_initialisation_is_the_original_one() -> None:
    torch.manual_seed(0)
    config = replace(ADAPTIVE, d_model=64, d_inner=512, vocab_size=4000, cutoffs=(1000, 2000), init_std=0.02)
    state = TransformerXL(config).state_dict()
    for name, value in state.items():
        mean = 1.0 if name.endswith("norm.weight") else 0.0
        std = 0.01 if "projections" in name else 0.02
        if "biases" in name or name.endswith(("cluster_bias", ".bias")):
            assert not value.any(), name
        elif value.numel() > 500:
            assert value.mean().item() == pytest.approx(mean, abs=0.002), name
            assert value.std().item() == pytest.approx(std, rel=0.1), name
    assert state["layers.0.attention.content_bias"].std() > 0.005
    assert 0.01 < state["layers.0.attention.norm.weight"].std() < 0.04
