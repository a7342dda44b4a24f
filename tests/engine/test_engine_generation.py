from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from txlplan.engine import generation
from txlplan.engine.backend import Backend
from txlplan.engine.generation import Generator
from txlplan.engine.sampling import choose, likeliest, penalised
from txlplan.engine.sampling import drawn as words_drawn
from txlplan.engine.world import World
from txlplan.errors import RunFailedError
from txlplan.nn import Inference, TransformerXL
from txlplan.nn._own_code import can_compile
from txlplan.plan_file import Sampling

BACKEND = Backend(device=torch.device("cpu"), precision="fp32", world=World())


def drawn(log, sampling, n=400):
    random = torch.Generator().manual_seed(1)
    return {int(choose(log, sampling, random)) for _ in range(n)}


def loud(config):
    """A model whose probabilities differ much from token to token."""
    torch.manual_seed(1)
    model = TransformerXL(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(8)
    return model


def continued(model, prompts, n=5, seed=1, backend=BACKEND, compiled=False, **sampling):
    """The next n tokens of each row."""
    settings = Sampling(**{"temperature": 0.0} | sampling)
    stream = Generator(model, backend, settings, rows=len(prompts), seed=seed, compiled=compiled).tokens(prompts)
    return torch.stack(list(itertools.islice(stream, n)), dim=1).tolist()


def test_zero_temperature_is_greedy():
    assert drawn(torch.log(torch.tensor([[0.2, 0.5, 0.3]])), Sampling(temperature=0.0), 5) == {1}


def test_top_k_draws_the_likeliest_only():
    log = torch.log(torch.tensor([[0.1, 0.4, 0.3, 0.2]]))
    assert drawn(log, Sampling(top_k=2)) == {1, 2}
    assert drawn(log, Sampling(top_k=9)) == {0, 1, 2, 3}


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, {1}), (0.4, {1}), (0.41, {1, 2}), (0.75, {1, 2, 3}), (1.0, {0, 1, 2, 3})])
def test_top_p_draws_the_fewest_that_have_it(top_p, kept):
    log = torch.log(torch.tensor([[0.1, 0.4, 0.3, 0.2]]))
    assert drawn(log, Sampling(top_p=top_p)) == kept


def test_top_p_is_of_what_top_k_leaves_at_the_temperature_and_of_each_row():
    log = torch.log(torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.97, 0.01, 0.01, 0.01]]))
    assert drawn(log[:1], Sampling(top_k=2, top_p=0.5)) == {1}  # 0.4 of 0.7 are more than half
    assert drawn(log[:1], Sampling(temperature=100.0, top_p=0.5)) == {1, 2}  # a quarter each
    random = torch.Generator().manual_seed(1)
    rows = torch.stack([choose(log, Sampling(top_p=0.6), random) for _ in range(100)], dim=1)
    assert set(rows[0].tolist()) == {1, 2}
    assert set(rows[1].tolist()) == {0}


@pytest.mark.parametrize(
    ("sampling", "kept"), [({}, 50), ({"top_k": 7}, 7), ({"top_p": 0.9}, None), ({"temperature": 1.7, "top_k": 20}, 20)]
)
def test_draws_fit_the_exact_probabilities(sampling, kept):
    """Chi-square of 50,000 draws against the probabilities computed here in float64."""
    log = torch.log_softmax(torch.randn(50, generator=torch.Generator().manual_seed(3)) * 1.5, dim=-1)
    share = np.exp(log.double().numpy() / sampling.get("temperature", 1.0))
    order = np.argsort(-share)
    share /= share[order[:kept]].sum()
    if kept is None:
        kept = int(np.searchsorted(share[order].cumsum(), sampling["top_p"])) + 1
    share[order[kept:]] = 0
    tokens = choose(log.expand(50_000, 50), Sampling(**sampling), torch.Generator().manual_seed(1))
    seen = np.bincount(tokens.numpy(), minlength=50)
    assert seen[share == 0].sum() == 0
    assert chisquare(seen[share > 0], share[share > 0] / share.sum() * 50_000).pvalue > 0.01


def test_a_token_of_probability_zero_is_never_drawn():
    """Not for the least and the greatest uniform number either, at the ends or between."""

    class Ends(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            return torch.tensor([[0.0], [1 - 2.0**-53]], dtype=torch.float64) if func is torch.rand else found

    random = torch.Generator().manual_seed(1)
    for row, ends in (([0, 0.3, 0, 0.7, 0], [1, 3]), ([1, 0, 0], [0, 0]), ([0, 0, 5], [2, 2]), ([1e-30, 1, 1e-30], [0, 1])):
        probability = torch.tensor([row, row])
        with Ends():
            assert words_drawn(probability, random).tolist() == ends
        many = words_drawn(probability[:1].expand(10_000, -1), random)
        assert set(many.tolist()) <= {index for index, share in enumerate(row) if share > 0}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("row", [[-1.0, float("nan")], [float("nan"), -1.0], [float("-inf")] * 2])
def test_probabilities_that_are_not_finite_are_refused(temperature, row):
    with pytest.raises(RunFailedError, match="not finite"):
        choose(torch.tensor([[-0.7, -0.7], row]), Sampling(temperature=temperature), torch.Generator())


def test_frequencies_follow_probability_and_temperature():
    log = torch.log(torch.tensor([0.2, 0.8])).expand(20_000, 2)
    random = torch.Generator().manual_seed(1)
    assert abs(choose(log, Sampling(), random).float().mean() - 0.8) < 0.01
    hot = 0.8**0.5 / (0.8**0.5 + 0.2**0.5)
    assert abs(choose(log, Sampling(temperature=2.0), random).float().mean() - hot) < 0.01


def test_the_penalty_makes_what_was_seen_rarer():
    log = torch.log(torch.tensor([[0.5, 0.5]]))
    seen = torch.tensor([[True, False]])
    torch.testing.assert_close(penalised(log, seen, 2.0).exp(), torch.tensor([[0.25, 0.5]]))


@pytest.mark.parametrize("cutoffs", [(), (20,)])
def test_a_large_penalty_repeats_neither_the_prompt_nor_itself(tiny_model, cutoffs):
    """Also where the likeliest words before it are in a cluster of fewer words than are drawn."""
    model = loud(dataclasses.replace(tiny_model, cutoffs=cutoffs))
    plain = continued(model, [[5, 6]], n=40)[0]
    assert len(set(plain)) < 40
    (row,) = continued(model, [[5, 6]], n=40, repetition_penalty=1e6)
    assert len({5, 6, *row}) == 42


@pytest.mark.parametrize(
    ("sampling", "enough"),
    [
        ({"temperature": 0.0}, 1),
        ({"temperature": 0.0, "top_k": 7}, 1),
        ({"top_k": 7, "top_p": 0.5}, 7),
        ({"top_p": 0.5}, None),
        ({}, None),
        ({"temperature": 0.0, "repetition_penalty": 1.5}, None),
        ({"top_k": 7, "repetition_penalty": 1.5}, None),
    ],
)
def test_how_many_of_the_likeliest_are_enough(sampling, enough):
    assert likeliest(Sampling(**sampling)) == enough


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.skipif(not can_compile("token"), reason="no compiler"))]
)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_k": 4}, {"temperature": 2.0, "top_k": 4, "top_p": 0.9}])
def test_clusters_left_out_change_no_token(tiny_model, monkeypatch, precision, compiled, sampling):
    """Of models whose likeliest words are sometimes in the head and sometimes not."""
    model = loud(dataclasses.replace(tiny_model, cutoffs=(30, 100)))
    backend, plain, left_out = dataclasses.replace(BACKEND, precision=precision), Inference.log_probabilities, []

    def noted(*args, **options):
        log_BV = plain(*args, **options)
        left_out.append(int(log_BV[0].isneginf().sum()))
        return log_BV

    def texts():
        left_out.clear()
        rows = []
        for bias, prompts in itertools.product((0, 4, 8), ([[5, 6, 7]], [[5], [6, 200]])):
            model.softmax.cluster_bias.data.fill_(bias)
            rows += continued(model, prompts, n=20, backend=backend, compiled=compiled, **sampling)
        return rows

    monkeypatch.setattr(Inference, "log_probabilities", noted)
    found = texts()
    assert len(set(left_out)) > 1
    assert {token < 30 for row in found for token in row} == {True, False}
    monkeypatch.setattr(generation, "likeliest", lambda _: None)
    assert texts() == found
    assert set(left_out) == {0}


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_k": 4}])
@pytest.mark.parametrize("name", ["embedding.tables.0", "layers.1.feed_forward.inner.weight", "softmax.cluster_bias"])
def test_weights_that_are_no_numbers_are_refused(tiny_model, sampling, name):
    model = loud(dataclasses.replace(tiny_model, cutoffs=(30, 100)))
    model.get_parameter(name).data.view(-1)[0] = float("nan")
    with pytest.raises(RunFailedError, match="not finite"):
        continued(model, [[0, 6]], n=20, **sampling)


def test_token_by_token_equals_reading_all_at_once(tiny_model):
    """Greedy tokens from recurrent memory are those that one long segment gives, while memory reaches back far enough."""
    model = loud(tiny_model)
    text = [5, 6, 7]
    rows = continued(model, [text, text])
    with torch.no_grad():
        for _ in range(5):
            hidden, _ = model(torch.tensor([text]), model.initial_memory(1), torch.tensor(0))
            text.append(int(model.log_probabilities(hidden[:, -1]).argmax()))
    assert rows == [text[3:]] * 2


@pytest.mark.parametrize("mem_len", [8, 40])
def test_unequal_prompts_go_on_as_each_does_alone(tiny_model, mem_len):
    """Also beyond the segment and the memory, and where rows fill their memories at different times."""
    model = loud(dataclasses.replace(tiny_model, mem_len=mem_len))
    prompts = [[5], [6, 7, 8], list(range(30)), [5]]
    alone = [continued(model, [prompt], n=20)[0] for prompt in prompts]
    assert continued(model, prompts, n=20) == alone
    assert alone[0] != alone[1]


def test_seeds_repeat_and_differ(tiny_model):
    model = TransformerXL(tiny_model)
    first, again, other = (continued(model, [[5], [5]], n=20, seed=seed, temperature=1.0, top_p=0.9) for seed in (1, 1, 2))
    assert first == again != other
    assert first[0] != first[1]


def test_a_long_prompt_is_read_in_segments(tiny_model):
    torch.manual_seed(1)
    model = TransformerXL(tiny_model)
    prompt = list(range(30))
    ((first,),) = continued(model, [prompt], n=1)
    memory, valid = model.initial_memory(1), torch.tensor(0)
    with torch.no_grad():
        for start in range(0, 30, 8):
            segment = torch.tensor([prompt[start : start + 8]])
            hidden, memory = model(segment, memory, valid)
            valid = model.advance(valid, segment.shape[1])
        assert first == int(model.log_probabilities(hidden[:, -1]).argmax())


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"repetition_penalty": 0.5}, "repetition_penalty = 0.5"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"stop": ("a", "")}, "empty string"),
    ],
)
def test_settings_without_sense_are_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        Sampling(**wrong)
