"""What our module is compared with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from _contenders import CONFIGS, hugging_face


def test_hugging_faces_weights_all_lie_on_the_default_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.Tensor, "type_as", torch.Tensor.type_as)  # it answers for torch; put back after the test
    config = replace(CONFIGS["wt103"], n_layer=1, vocab_size=60, cutoffs=(20, 40), tie_projections=(False, False, False))
    with torch.device("meta"):
        model = hugging_face(config)
    assert {weight.device.type for weight in model.state_dict().values()} == {"meta"}
