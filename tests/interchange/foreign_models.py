"""Models of every variant that other programs have, and state dicts in their layouts."""

from __future__ import annotations

import torch
from torch import Tensor

from txlplan.interchange._layouts import Layout, foreign_state
from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL

torch.set_num_threads(1)
BASE = ModelConfig(
    id="base", n_layer=2, d_model=16, n_head=2, d_head=6, d_inner=24, vocab_size=40, tgt_len=6, mem_len=7, untie_r=False
)
SYMBOLS = ["<eos>", "<unk>", *(f"w{number}" for number in range(38))]


def built(config: ModelConfig) -> TransformerXL:
    """A module whose parameters are all random, biases too."""
    torch.manual_seed(3)
    module = TransformerXL(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def state_of(module: TransformerXL, layout: Layout) -> dict[str, Tensor]:
    """What the other program would have saved: shared parameters under each of their names, and its buffer."""
    return {name: tensor.clone() for name, tensor in foreign_state(module.config, module.state_dict(), layout).items()}
