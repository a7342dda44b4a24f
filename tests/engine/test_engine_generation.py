from __future__ import annotations

import torch

from txlplan.engine.backend import Backend
from txlplan.engine.generation import Generator, choose
from txlplan.engine.world import World
from txlplan.nn import TransformerXL
from txlplan.plan_file import Sampling

BACKEND = Backend(device=torch.device("cpu"), precision="fp32", world=World())


def drawn(log, sampling, n=400):
    random = torch.Generator().manual_seed(1)
    return {int(choose(log, sampling, random)) for _ in range(n)}


def test_zero_temperature_is_greedy():
    assert drawn(torch.log(torch.tensor([[0.2, 0.5, 0.3]])), Sampling(temperature=0.0), 5) == {1}


def test_top_k_draws_the_likeliest_only():
    log = torch.log(torch.tensor([[0.1, 0.4, 0.3, 0.2]]))
    assert drawn(log, Sampling(top_k=2)) == {1, 2}
    assert drawn(log, Sampling(top_k=9)) == {0, 1, 2, 3}


def test_frequencies_follow_probability_and_temperature():
    log = torch.log(torch.tensor([0.2, 0.8])).expand(20_000, 2)
    random = torch.Generator().manual_seed(1)
    assert abs(choose(log, Sampling(), random).float().mean() - 0.8) < 0.01
    hot = 0.8**0.5 / (0.8**0.5 + 0.2**0.5)
    assert abs(choose(log, Sampling(temperature=2.0), random).float().mean() - hot) < 0.01


def test_token_by_token_equals_reading_all_at_once(tiny_model):
    """Greedy tokens from recurrent memory are those that one long segment gives, while memory reaches back far enough."""
    torch.manual_seed(1)
    model = TransformerXL(tiny_model).eval()
    for parameter in model.parameters():
        parameter.data.mul_(8)
    prompt = [5, 6, 7]
    stream = Generator(model, BACKEND, Sampling(temperature=0.0), batch=2, seed=1).tokens(prompt)
    rows = torch.stack([next(stream) for _ in range(5)], dim=1)
    text = list(prompt)
    with torch.no_grad():
        for _ in range(5):
            hidden, _ = model(torch.tensor([text]), model.initial_memory(1), torch.tensor(0))
            text.append(int(model.log_probabilities(hidden[:, -1]).argmax()))
    assert rows.tolist() == [text[3:]] * 2


def test_a_long_prompt_is_read_in_segments(tiny_model):
    torch.manual_seed(1)
    model = TransformerXL(tiny_model)
    prompt = list(range(30))
    first = next(Generator(model, BACKEND, Sampling(temperature=0.0), batch=1, seed=1).tokens(prompt))
    memory, valid = model.initial_memory(1), torch.tensor(0)
    with torch.no_grad():
        for start in range(0, 30, 8):
            segment = torch.tensor([prompt[start : start + 8]])
            hidden, memory = model(segment, memory, valid)
            valid = model.advance(valid, segment.shape[1])
        assert int(first) == int(model.log_probabilities(hidden[:, -1]).argmax())
