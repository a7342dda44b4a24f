"""The reference module against float64 NumPy: outputs, loss, gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy_transformer_xl as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from txlplan.model import ModelConfig, parameter_shapes
from txlplan.nn import TransformerXL

torch.set_num_threads(1)
BASE = ModelConfig(id="oracle", n_layer=2, d_model=6, n_head=2, d_head=3, d_inner=7, vocab_size=11, tgt_len=3, mem_len=4)


def build(config: ModelConfig, seed: int) -> tuple[TransformerXL, dict[str, np.ndarray]]:
    """A float64 module in eval mode whose parameters (all of them random, biases too) are also given as arrays."""
    generator = np.random.default_rng(seed)
    arrays = {name: generator.normal(0.0, 0.4, shape) for name, shape in parameter_shapes(config).items()}
    module = TransformerXL(config).double().eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module, arrays


def inputs(config: ModelConfig, seed: int, batch: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, targets, memory and a valid length per sequence."""
    generator = np.random.default_rng(seed + 1)
    tokens, targets = generator.integers(0, config.vocab_size, (2, batch, config.tgt_len))
    memory = generator.normal(size=(config.n_layer, batch, config.mem_len, config.d_model))
    return tokens, targets, memory, generator.integers(0, config.mem_len + 1, batch)


@st.composite
def configurations(draw: st.DrawFn) -> ModelConfig:
    """Small models of every variant."""
    mem_len = draw(st.integers(0, 7))
    cutoffs = draw(st.sampled_from([(), (4,), (3, 5), (1, 2, 8)]))
    clusters = len(cutoffs) + 1
    div_val = draw(st.sampled_from([1, 2])) if cutoffs else 1
    return ModelConfig(
        id="drawn",
        n_layer=draw(st.integers(1, 2)),
        d_model=draw(st.sampled_from([2, 4, 6])),
        n_head=draw(st.integers(1, 3)),
        d_head=draw(st.integers(1, 4)),
        d_inner=draw(st.integers(1, 6)),
        vocab_size=draw(st.integers(9, 12)),
        d_embed=draw(st.sampled_from([8, 9] if div_val > 1 else [None, 3, 4])),
        cutoffs=cutoffs,
        div_val=div_val,
        tie_weights=draw(st.booleans()),
        tie_projections=draw(st.one_of(st.just(()), st.tuples(*[st.booleans()] * clusters))),
        tgt_len=draw(st.integers(1, 5)),
        mem_len=mem_len,
        clamp_len=draw(st.sampled_from([None, 1, 3])),
        same_length=draw(st.booleans()) if mem_len else False,
        norm=draw(st.sampled_from(["post", "pre"])),
        activation=draw(st.sampled_from(["relu", "gelu"])),
        untie_r=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(config=configurations(), seed=st.integers(0, 1000))
def test_outputs_memory_and_loss_equal_the_equations(config: ModelConfig, seed: int) -> None:
    module, arrays = build(config, seed)
    tokens, targets, memory, valid = inputs(config, seed)
    hidden, new_memory = module(torch.from_numpy(tokens), torch.from_numpy(memory), torch.from_numpy(valid))
    expected, expected_memory = oracle.forward(config, arrays, tokens, memory, valid)
    np.testing.assert_allclose(hidden.detach(), expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(new_memory, expected_memory, rtol=1e-5, atol=1e-9)
    loss = module.nll(hidden, torch.from_numpy(targets)).mean()
    assert loss.item() == pytest.approx(oracle.mean_nll(config, arrays, expected, targets), rel=1e-5)
    log_probabilities = module.log_probabilities(hidden[:, -1]).detach()
    expected_last = [oracle.log_probabilities(config, arrays, row[-1]) for row in expected]
    np.testing.assert_allclose(log_probabilities, expected_last, rtol=1e-5, atol=1e-9)


VARIANTS = {
    "post": {},
    "pre-gelu-shared-biases": {"norm": "pre", "activation": "gelu", "untie_r": False},
    "adaptive-tied": {"cutoffs": (3, 6), "div_val": 2, "tie_projections": (False, True, True)},
    "adaptive-narrow": {"cutoffs": (4,), "d_embed": 5, "tie_projections": (True, False), "tie_weights": False},
    "same-length-clamped": {"same_length": True, "clamp_len": 2},
    "long-memory": {"mem_len": 8, "tgt_len": 2},
    "no-memory": {"mem_len": 0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_equal_central_differences(variant: str) -> None:
    config = replace(BASE, n_layer=1 if "adaptive" in variant else 2, **VARIANTS[variant])
    module, arrays = build(config, seed=3)
    tokens, targets, memory, valid = inputs(config, seed=3)
    hidden, _ = module(torch.from_numpy(tokens), torch.from_numpy(memory), torch.from_numpy(valid))
    module.nll(hidden, torch.from_numpy(targets)).mean().backward()

    def loss() -> float:
        return oracle.mean_nll(config, arrays, oracle.forward(config, arrays, tokens, memory, valid)[0], targets)

    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        index = np.unravel_index(int(parameter.grad.abs().argmax()), parameter.shape)
        measured = _central_difference(loss, arrays[name], index)
        assert parameter.grad[index].item() == pytest.approx(measured, rel=1e-5, abs=1e-9), name
        _check_along_a_random_direction(loss, arrays[name], parameter.grad.numpy(), name)


def _central_difference(loss, array: np.ndarray, index: tuple[int, ...], step: float = 1e-5) -> float:
    kept = array[index]
    array[index] = kept + step
    above = loss()
    array[index] = kept - step
    below = loss()
    array[index] = kept
    return (above - below) / (2 * step)


def _check_along_a_random_direction(loss, array: np.ndarray, gradient: np.ndarray, name: str, step: float = 1e-5) -> None:
    """The directional derivative covers every element of the parameter at once."""
    kept = array.copy()
    direction = np.random.default_rng(7).normal(size=array.shape)
    array[...] = kept + step * direction
    above = loss()
    array[...] = kept - step * direction
    below = loss()
    array[...] = kept
    expected = float((gradient * direction).sum())
    scale = float(np.abs(gradient * direction).sum())
    assert (above - below) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-5 * scale + 1e-9), name
