from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from txlplan.data import open_dataset, prepare, unigram_entropy_bits_per_character
from txlplan.engine import evaluation
from txlplan.engine.backend import Backend
from txlplan.engine.windows import Windows
from txlplan.engine.world import World
from txlplan.errors import DataError, RunFailedError
from txlplan.nn import TransformerXL

BACKEND = Backend(device=torch.device("cpu"), precision="fp32", world=World())


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(1)
    return TransformerXL(tiny_model).train()


def windows(n, rows, tgt_len=8):
    return Windows(tokens=np.random.default_rng(1).integers(0, 256, n, dtype=np.uint8), rows=rows, tgt_len=tgt_len)


def test_the_score_is_the_mean_over_targets_of_a_plain_loop(model):
    split = windows(50, 1)
    tokens = torch.from_numpy(split.tokens.astype(np.int64))[None]
    memory, valid, total = model.initial_memory(1), torch.tensor(0), 0.0
    model.eval()
    with torch.no_grad():
        for start in range(0, 49, 8):
            inputs, targets = tokens[:, start : min(start + 8, 49)], tokens[:, start + 1 : start + 9]
            hidden, memory = model(inputs, memory, valid)
            valid = model.advance(valid, inputs.shape[1])
            total += model.nll(hidden, targets).sum().item()
    model.train()
    assert evaluation.score(model, BACKEND, split) == pytest.approx(total / 49, abs=1e-6)
    assert model.training


def test_every_target_is_scored_once_whatever_the_rows(model):
    for rows in (1, 3, 5):
        counted = []
        evaluation.score(model, BACKEND, windows(100, rows), on_step=lambda scored: counted.append(scored.tokens) or True)  # noqa: B023
        assert sum(counted) == 99


def test_scoring_can_be_stopped(model):
    assert evaluation.score(model, BACKEND, windows(100, 2), on_step=lambda _: False) is None


def test_weights_that_are_not_finite_have_no_score(model):
    next(model.parameters()).data.fill_(math.nan)
    with pytest.raises(RunFailedError, match="score is nan"):
        evaluation.score(model, BACKEND, windows(100, 2))


def test_bits_per_character_of_a_loss(dataset_directory):
    """Guessing by frequency scores the unigram entropy."""
    dataset = open_dataset(dataset_directory)
    counts = dataset.counts("valid")
    p = counts[counts > 0] / counts.sum()
    event = evaluation.evaluated(dataset, "valid", float(-(p * np.log(p)).sum()), 7)
    assert event.bits_per_character == pytest.approx(unigram_entropy_bits_per_character(dataset, "valid"))
    assert event.perplexity == pytest.approx(math.exp(event.loss))


def test_a_split_of_one_token_is_refused(plan_of, tmp_path):
    (tmp_path / "text.txt").write_text("some text to train on")
    (tmp_path / "short.txt").write_text("x")
    prepare([tmp_path / "text.txt"], tmp_path / "data", valid=[tmp_path / "short.txt"], processes=1)
    with pytest.raises(DataError, match="nothing to predict"):
        evaluation.windows(plan_of(), BACKEND, open_dataset(tmp_path / "data"), "valid")
