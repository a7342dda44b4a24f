"""The module on a GPU: by its fused kernels as by the readable reference, and as on a CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from txlplan.model import ModelConfig
from txlplan.nn import Inference, TransformerXL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here")

BASE = ModelConfig(
    id="cuda",
    n_layer=3,
    d_model=64,
    n_head=4,
    d_head=16,
    d_inner=128,
    vocab_size=500,
    cutoffs=(100, 300),
    tgt_len=40,
    mem_len=56,
)
CHANGES: list[dict[str, Any]] = [
    {},
    {"norm": "pre", "untie_r": False},
    {"same_length": True, "clamp_len": 3},
    {"mem_len": 0},
    {"tgt_len": 1},
    {"mem_len": 23, "d_head": 41, "n_head": 1},
    {"cutoffs": (), "vocab_size": 267},
    {"div_val": 2, "tie_projections": (True, True, True)},
]


def made(config: ModelConfig) -> TransformerXL:
    torch.manual_seed(5)
    module = TransformerXL(config).train()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module


def results(module: TransformerXL, path: str, device: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Hidden states, loss, new memory and every gradient, on the CPU."""
    config, module = module.config, module.to(device)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, config.vocab_size, (3, config.tgt_len), generator=generator).to(device)
    memory = torch.randn((config.n_layer, 3, config.mem_len, config.d_model), generator=generator).to(device)
    valid = torch.randint(0, config.mem_len + 1, (3,), generator=generator).to(device)
    module.use_attention(path)  # type: ignore[arg-type]
    module.zero_grad()
    with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
        hidden, new_memory = module(tokens, memory, valid)
        loss = module.nll(hidden, tokens).mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    found = {"hidden": hidden, "loss": loss, "memory": new_memory, **gradients}
    return {name: value.detach().float().cpu() for name, value in found.items()}


def distance(found: Tensor, value: Tensor) -> float:
    """Relative to the norm of the tensor."""
    return float((found - value).norm() / value.norm().clamp(min=1e-6))


@pytest.mark.parametrize("changes", CHANGES)
def test_the_fused_kernels_equal_the_reference_and_the_cpu(changes: dict[str, Any]) -> None:
    module = made(replace(BASE, **changes))
    on_cpu = results(module, "reference", "cpu")
    for path in ("reference", "fast"):
        found = results(module, path, "cuda")
        assert found.keys() == on_cpu.keys()
        for name, value in on_cpu.items():
            assert distance(found[name], value) < 3e-5, f"{path}: {name}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("changes", CHANGES)
def test_autocast_is_about_as_near_to_fp32_as_the_reference_is(changes: dict[str, Any], dtype: torch.dtype) -> None:
    module = made(replace(BASE, **changes))
    exact = results(module, "reference", "cuda")
    low, reference = (results(module, path, "cuda", dtype) for path in ("fast", "reference"))
    for name, value in exact.items():
        assert distance(low[name], value) <= 4.0 * distance(reference[name], value) + 2e-3, name


@pytest.mark.parametrize("again", ["full", "attention", "feed-forward"])
def test_what_backward_computes_again_changes_nothing(again: Any) -> None:
    module = made(replace(BASE, dropout=0.1, dropatt=0.1)).cuda()
    module.use_attention("fast")
    tokens = torch.randint(0, BASE.vocab_size, (3, BASE.tgt_len), device="cuda")
    found = []
    for kind in ("none", again):
        module.activation_checkpointing = kind
        module.zero_grad()
        torch.manual_seed(3)
        hidden, _ = module(tokens, module.initial_memory(3, "cuda"), torch.zeros((), dtype=torch.int64, device="cuda"))
        module.nll(hidden, tokens).mean().backward()
        found.append({name: parameter.grad.clone() for name, parameter in module.named_parameters()})
    for name, value in found[0].items():
        assert distance(found[1][name], value) < 1e-4, name


@pytest.mark.parametrize("changes", CHANGES)
def test_what_is_read_with_kept_keys_is_what_the_module_says(changes: dict[str, Any]) -> None:
    module = made(replace(BASE, **changes)).eval().cuda()
    fast = Inference(module, rows=2)
    ring = fast.ring(2, longest=16)
    memory, valid = module.initial_memory(2, "cuda"), torch.zeros((), dtype=torch.int64, device="cuda")
    for length in (16, 7, *[1] * 40, 16, 16, 1, 3):
        tokens, targets = torch.randint(0, module.config.vocab_size, (2, 2, length), device="cuda")
        with torch.no_grad():
            expected, memory = module(tokens, memory, valid)
            wanted = module.nll(expected, targets)
        valid = module.advance(valid, length)
        hidden = fast.read(tokens, ring)
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fast.nll(hidden, targets), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("changes", CHANGES)
def test_captured_layers_train_as_eager_ones_do(changes: dict[str, Any], dtype: torch.dtype | None) -> None:
    """Over several segments: what one replay leaves is what the next one begins with."""
    eager = made(replace(BASE, **changes)).cuda()
    captured = made(replace(BASE, **changes)).cuda()
    tokens = torch.randint(0, eager.config.vocab_size, (4, 3, eager.config.tgt_len), device="cuda")
    for module in (eager, captured):
        module.use_attention("fast")
    cast = torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)
    captured.capture(tokens[0], cast)
    assert captured.is_captured
    assert not eager.is_captured
    found = []
    for module in (eager, captured):
        memory, valid = module.initial_memory(3, "cuda"), torch.zeros((), dtype=torch.int64, device="cuda")
        for segment in tokens:
            module.zero_grad()
            with torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None):
                hidden, memory = module(segment, memory, valid)
                loss = module.nll(hidden, segment).mean()
            loss.backward()
            valid = module.advance(valid)
        gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
        found.append({"hidden": hidden.detach().clone(), "memory": memory.clone(), **gradients})
    for name, value in found[0].items():
        assert distance(found[1][name].float(), value.float()) < (1e-5 if dtype is None else 1e-2), name


def test_captured_layers_draw_what_they_drop_anew_and_leave_the_generator_where_it_was() -> None:
    module = made(replace(BASE, dropout=0.3, dropatt=0.3)).cuda()
    module.use_attention("fast")
    tokens = torch.randint(0, BASE.vocab_size, (3, BASE.tgt_len), device="cuda")
    before = torch.cuda.get_rng_state()
    module.capture(tokens, torch.autocast("cuda", enabled=False))
    torch.testing.assert_close(torch.cuda.get_rng_state(), before)
    memory, valid = module.initial_memory(3, "cuda"), torch.zeros((), dtype=torch.int64, device="cuda")
    first, second = (module(tokens, memory, valid)[0].detach().clone() for _ in range(2))
    assert distance(second, first) > 0.1
    torch.cuda.set_rng_state(before)
    torch.testing.assert_close(module(tokens, memory, valid)[0].detach(), first)


def test_a_compiled_token_is_the_plain_one() -> None:
    module = made(BASE).eval().cuda()
    plain, compiled = Inference(module, rows=2), Inference(module, rows=2, compiled=True)
    rings = [each.ring(2, longest=1) for each in (plain, compiled)]
    for _ in range(70):
        token = torch.randint(0, BASE.vocab_size, (2, 1), device="cuda")
        expected, found = (each.read(token, ring) for each, ring in zip((plain, compiled), rings, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_thousand_steps_allocate_nothing_new() -> None:
    module = made(replace(BASE, dropout=0.1)).cuda()
    module.use_attention("fast")
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    memory, valid = module.initial_memory(4, "cuda"), torch.zeros((), dtype=torch.int64, device="cuda")
    tokens = torch.randint(0, BASE.vocab_size, (4, BASE.tgt_len), device="cuda")
    held = 0
    for step in range(1000):
        hidden, memory = module(tokens, memory, valid)
        valid = module.advance(valid)
        module.nll(hidden, tokens).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step == 20:
            held = torch.cuda.memory_reserved()
    assert torch.cuda.memory_reserved() == held
