"""The op stream of the published implementation against ours: the same mathematics by other kernels."""

from __future__ import annotations

import numpy as np
import pytest

from txlplan.cost import Settings, build
from txlplan.errors import InputError
from txlplan.model import ModelConfig, parameter_count
from txlplan.workload import Optimization

MODELS = [
    ModelConfig(
        id="full", n_layer=3, d_model=64, n_head=4, d_head=16, d_inner=128, vocab_size=500, tgt_len=32, mem_len=48, dropout=0.1
    ),
    ModelConfig(
        id="adaptive",
        n_layer=2,
        d_model=64,
        n_head=4,
        d_head=16,
        d_inner=128,
        vocab_size=500,
        cutoffs=(100, 300),
        div_val=2,
        tgt_len=32,
        mem_len=16,
        dropatt=0.1,
    ),
]


def settings(model: ModelConfig, implementation: str, **changes) -> Settings:
    return Settings(
        model=model,
        optimization=Optimization(optimizer=changes.pop("optimizer", "lamb")),
        implementation=implementation,  # type: ignore[arg-type]
        fused_dropout=True,
        full_precision_copy=implementation == "reference",
        **changes,
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
@pytest.mark.parametrize("task", ["train", "score"])
def test_flops_equal_those_of_our_module(model, task):
    streams = [build(settings(model, name, task=task), np.array([1.0, 5.0])) for name in ("reference", "published")]
    ours, theirs = (stream.total(stream.flops, "forward", "backward") for stream in streams)
    assert theirs == pytest.approx(ours)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_half_precision_halves_gradients_and_kept_activations(model):
    full, half = (build(settings(model, "published", precision=name), np.array([4.0])) for name in ("fp32", "fp16"))
    gradients = [stream.total(stream.gradient_bytes, "backward")[0] for stream in (full, half)]
    assert gradients[0] == pytest.approx(4 * parameter_count(model), rel=0.02)
    assert gradients[1] == pytest.approx(gradients[0] / 2)
    kept = [stream.total(stream.saved_bytes, "forward")[0] for stream in (full, half)]
    assert kept[1] < 0.65 * kept[0]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_backward_gives_back_what_forward_kept(model):
    stream = build(settings(model, "published"), np.array([4.0]))
    held = stream.total(stream.saved_bytes, "forward", "backward")[0]
    assert held == pytest.approx(0.0, abs=1e-6 * stream.total(stream.saved_bytes, "forward")[0])


def test_the_update_goes_over_each_tensor():
    names = ("lamb", "adamw", "adam")
    streams = [build(settings(MODELS[0], "published", optimizer=name), np.array([1.0])) for name in names]
    lamb, adamw, adam = (stream.total(stream.launches, "update")[0] for stream in streams)
    assert lamb > adamw > adam > 100
    with pytest.raises(InputError, match="has no adafactor"):
        build(settings(MODELS[0], "published", optimizer="adafactor"), np.array([1.0]))
