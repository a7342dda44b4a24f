"""Parameter counts of published configurations, and FLOPs against what torch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from txlplan.model import ModelConfig, forward_flops_per_token, models, parameter_count, parameter_groups, parameter_shapes

SMALL = ModelConfig(id="s", n_layer=2, d_model=16, n_head=2, d_head=4, d_inner=24, vocab_size=40, tgt_len=6, mem_len=10)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("nvidia-wt103-base", 191_950_298),
        ("nvidia-wt103-large", 285_167_482),
        ("lambda-wt103-base", 191_948_759),
        ("lambda-wt103-large", 519_963_095),
    ],
)
def test_counts_are_the_published_ones(name: str, published: int) -> None:
    assert parameter_count(models.get(name)) == published


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("original-wt103-base", 151),
        ("original-enwik8-12", 41),
        ("original-text8-12", 41),
        ("original-enwik8-24", 277),
        ("original-text8-24", 277),
    ],
)
def test_counts_round_to_those_of_the_paper(name: str, millions: int) -> None:
    """Dai et al. 2019, tables 1 to 3."""
    assert round(parameter_count(models.get(name)) / 1e6) == millions


def test_every_preset_has_sources() -> None:
    for config in models.all():
        assert {"paper", "shape"} <= set(config.sources), config.id
        assert config.name, config.id


def test_groups_add_up() -> None:
    for config in models.all():
        assert sum(parameter_groups(config).values()) == parameter_count(config)


def test_untied_weights_and_projections_are_counted() -> None:
    adaptive = replace(SMALL, cutoffs=(10, 20), div_val=2, tie_projections=(True, True, True))
    tied, untied = parameter_count(adaptive), parameter_count(replace(adaptive, tie_projections=(False, True, True)))
    assert untied - tied == 16 * 16
    tables = 10 * 16 + 10 * 8 + 20 * 4
    assert parameter_count(replace(adaptive, tie_weights=False)) - tied == tables
    assert parameter_shapes(adaptive)["embedding.projections.1"] == (16, 8)


def test_shared_position_biases_are_counted_once() -> None:
    assert parameter_count(SMALL) - parameter_count(replace(SMALL, untie_r=False)) == 2 * 2 * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 15}, "even"),
        ({"same_length": True, "mem_len": 0}, "same_length"),
        ({"mem_len": -1}, "mem_len = -1"),
        ({"n_layer": 0}, "n_layer = 0"),
        ({"cutoffs": (20, 10)}, "ascend"),
        ({"cutoffs": (40,)}, "vocab_size = 40"),
        ({"cutoffs": (10,), "tie_projections": (True,)}, "1 entries for 2 clusters"),
        ({"cutoffs": (10, 20), "div_val": 8}, "leaves no width"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"clamp_len": 0}, "clamp_len = 0"),
        ({"d_embed": 0}, "d_embed = 0"),
    ],
)
def test_a_wrong_configuration_names_the_value(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mem_len": 0}, {"d_embed": 8}, {"cutoffs": (10, 20), "div_val": 2}, {"norm": "pre", "untie_r": False}],
    ids=["plain", "no-memory", "projected", "adaptive", "pre"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_flops_are_those_that_torch_counts(changes: dict[str, object], batch: int) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from txlplan.nn import TransformerXL

    config = replace(SMALL, **changes)
    module = TransformerXL(config)
    tokens = torch.zeros(batch, config.tgt_len, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        hidden, _ = module(tokens, module.initial_memory(batch), torch.tensor(config.mem_len))
        module.nll(hidden, tokens)
    counted = counter.get_total_flops() / (batch * config.tgt_len)
    assert sum(forward_flops_per_token(config, batch=batch).values()) == pytest.approx(counted, rel=1e-12)
