"""Training steps of four modules of one shape: a function a module, which returns one that takes a step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from txlplan.model import ModelConfig

CONFIGS = {
    "tiny": ModelConfig(
        id="tiny", n_layer=6, d_model=256, n_head=4, d_head=64, d_inner=1024, vocab_size=256, tgt_len=128, mem_len=128
    ),
    "enwik8": ModelConfig(
        id="enwik8", n_layer=12, d_model=512, n_head=8, d_head=64, d_inner=2048, vocab_size=204, tgt_len=512, mem_len=512
    ),
    "wt103": ModelConfig(
        id="wt103",
        n_layer=16,
        d_model=410,
        n_head=10,
        d_head=41,
        d_inner=2100,
        vocab_size=30_000,
        cutoffs=(2_000, 10_000, 20_000),
        tie_projections=(False, False, False, False),
        tgt_len=150,
        mem_len=150,
    ),
}
ROWS = {"tiny": 8, "enwik8": 2, "wt103": 4}
"""Sequences of a step."""
_LEARNING_RATE = 1e-4
Step = Callable[[], float]


def _stepping(loss: Callable[[Tensor, Tensor], Tensor], model: nn.Module, config: ModelConfig, rows: int, **adam: Any) -> Step:
    """Random tokens, loss, backward, Adam; returns the loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE, **adam)
    generator = torch.Generator().manual_seed(1)

    def step() -> float:
        tokens = torch.randint(0, config.vocab_size, (rows, config.tgt_len + 1), generator=generator)
        value = loss(tokens[:, :-1], tokens[:, 1:])
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(value.detach())

    return step


def _autocast(bf16: bool) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()


def _ours(path: str) -> Callable[[ModelConfig, int, bool], Step]:
    def create(config: ModelConfig, rows: int, bf16: bool) -> Step:
        from txlplan.nn import TransformerXL

        model = TransformerXL(config).train()
        model.use_attention(path)  # type: ignore[arg-type]
        memory, valid = model.initial_memory(rows), torch.zeros((), dtype=torch.int64)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            nonlocal memory, valid
            with _autocast(bf16):
                hidden, memory = model(inputs, memory, valid)
                valid = model.advance(valid)
                return model.nll(hidden, targets).mean()

        return _stepping(loss, model, config, rows, fused=True)

    return create


def hugging_face(config: ModelConfig, rows: int, bf16: bool) -> Step:
    """transformers' transfo-xl. Its `type_as(dtype=…)` is no call that torch takes any more, and is answered here."""
    from transformers.models.deprecated.transfo_xl import TransfoXLConfig, TransfoXLLMHeadModel

    from txlplan.interchange._foreign_config import to_hugging_face

    plain = Tensor.type_as
    Tensor.type_as = lambda self, other=None, *, dtype=None: self.to(dtype) if other is None else plain(self, other)  # type: ignore[method-assign,assignment]
    model = TransfoXLLMHeadModel(TransfoXLConfig(**to_hugging_face(config))).train()
    mems: list[Tensor] | None = None

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        """It shifts its labels by itself; one more column of inputs than of targets costs it no more."""
        nonlocal mems
        with _autocast(bf16):
            out = model(input_ids=inputs, mems=mems, labels=targets)
        mems = out.mems
        return out.losses.mean() if out.losses is not None else out.loss

    return _stepping(loss, model, config, rows)


def x_transformers(config: ModelConfig, rows: int, bf16: bool) -> Step:
    """x-transformers' decoder with memories and a relative bias. It has no adaptive softmax: all words are logits."""
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(
        dim=config.d_model,
        depth=config.n_layer,
        heads=config.n_head,
        attn_dim_head=config.d_head,
        ff_mult=config.d_inner / config.d_model,
        rel_pos_bias=True,
        attn_dropout=config.dropatt,
        ff_dropout=config.dropout,
    )
    model = TransformerWrapper(
        num_tokens=config.vocab_size, max_seq_len=config.tgt_len, max_mem_len=config.mem_len, attn_layers=layers
    ).train()
    mems: list[Tensor] | None = None

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal mems
        with _autocast(bf16):
            logits, mems = model(inputs, mems=mems, return_mems=True)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return _stepping(loss, model, config, rows)


CONTENDERS: dict[str, Callable[[ModelConfig, int, bool], Step]] = {
    "fast": _ours("fast"),
    "reference": _ours("reference"),
    "hugging-face": hugging_face,
    "x-transformers": x_transformers,
}
