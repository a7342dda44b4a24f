"""Modules of one shape by four hands, each a language model that carries its memory from one segment to the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from txlplan.choices import AttentionPath
from txlplan.engine.own_attention import require_code
from txlplan.model import ModelConfig
from txlplan.nn._suited_products import suit_products

if TYPE_CHECKING:
    from txlplan.data import Dataset

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


class Contender(Protocol):
    """A model and what it remembers."""

    model: nn.Module
    memory: list[Tensor] | None
    """None: nothing yet."""

    def nll(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Nats of each target or of all in the mean; the memory goes on."""


class Ours:
    """txlplan's module by one of its paths."""

    def __init__(self, config: ModelConfig, path: AttentionPath) -> None:
        from txlplan.nn import TransformerXL

        self.model = TransformerXL(config).train()
        self.model.use_attention(path)
        self.memory: list[Tensor] | None = None

    def nll(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """[B, T]."""
        if self.memory is None:
            self.memory = [self.model.initial_memory(inputs.shape[0]), torch.zeros((), dtype=torch.int64)]
        hidden, memory = self.model(inputs, *self.memory)
        self.memory = [memory, self.model.advance(self.memory[1])]
        return self.model.nll(hidden, targets)


_PLAIN_TYPE_AS = Tensor.type_as


def _type_as(self: Tensor, other: Tensor | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
    """What Hugging Face calls with a dtype, which torch takes no more."""
    return self.to(dtype) if other is None else _PLAIN_TYPE_AS(self, other)


def hugging_face(config: ModelConfig) -> Any:
    """transformers' transfo-xl, on torch's default device: some of its weights are made on the CPU whatever that is."""
    from transformers.models.deprecated.transfo_xl import TransfoXLConfig, TransfoXLLMHeadModel

    from txlplan.interchange._foreign_config import to_hugging_face

    Tensor.type_as = _type_as  # type: ignore[method-assign,assignment]
    return TransfoXLLMHeadModel(TransfoXLConfig(**to_hugging_face(config))).to(torch.get_default_device())


class HuggingFace:
    """transformers' transfo-xl."""

    def __init__(self, config: ModelConfig) -> None:
        self.model = hugging_face(config).train()
        self.memory: list[Tensor] | None = None

    def nll(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Of the inputs, one token less a row than `targets`: it shifts its labels by itself."""
        out = self.model(input_ids=inputs, mems=self.memory, labels=targets)
        self.memory = out.mems
        return out.losses if out.losses is not None else out.loss


class XTransformers:
    """x-transformers' decoder with memories and a relative bias. It has no adaptive softmax: all words are logits."""

    def __init__(self, config: ModelConfig) -> None:
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
        self.model = TransformerWrapper(
            num_tokens=config.vocab_size, max_seq_len=config.tgt_len, max_mem_len=config.mem_len, attn_layers=layers
        ).train()
        self.memory: list[Tensor] | None = None

    def nll(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """[B·T]."""
        logits, self.memory = self.model(inputs, mems=self.memory, return_mems=True)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")


CONTENDERS: dict[str, Callable[[ModelConfig], Contender]] = {
    "fast": lambda config: Ours(config, "fast"),
    "compiled": lambda config: Ours(config, "compiled"),
    "reference": lambda config: Ours(config, "reference"),
    "hugging-face": HuggingFace,
    "x-transformers": XTransformers,
}


TRAINER, COMPILED_TRAINER = "trainer", "trainer-compiled"
"""The step of `txlplan run`, whose worker keeps freed memory; the second with attention by code of our own."""


def stepping(name: str, config: ModelConfig, rows: int, bf16: bool, device: torch.device) -> Callable[[], float]:
    """Makes a training step of random tokens at each call: forward, backward, Adam (ours fused); returns the loss.

    `device` is where torch makes its tensors by default.
    """
    if attention_of(name) == "compiled":
        require_code("bf16" if bf16 else "fp32")
    if name in (TRAINER, COMPILED_TRAINER):
        return _trainer(config, rows, bf16, device, attention_of(name))
    contender = CONTENDERS[name](config)
    if isinstance(contender, Ours) and device.type == "cpu":
        suit_products(bf16=bf16)
    optimizer = torch.optim.Adam(contender.model.parameters(), lr=_LEARNING_RATE, fused=isinstance(contender, Ours) or None)
    generator = torch.Generator(device=device).manual_seed(1)

    def step() -> float:
        tokens = torch.randint(0, config.vocab_size, (rows, config.tgt_len + 1), generator=generator)
        with _autocast(bf16, device):
            value = contender.nll(tokens[:, :-1], tokens[:, 1:]).mean()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(value.detach())

    return step


def attention_of(name: str) -> AttentionPath:
    """How one of ours computes attention."""
    return "compiled" if "compiled" in name else "fast"


def _trainer(config: ModelConfig, rows: int, bf16: bool, device: torch.device, attention: AttentionPath) -> Callable[[], float]:
    """As a run does it (on a GPU by graphs of kernels), with the optimizer and the clipping of its default recipe; it loads its
    data and checks its loss."""
    from txlplan.engine.backend import Backend, as_planned
    from txlplan.engine.heap import keep_freed_memory
    from txlplan.engine.training import Trainer
    from txlplan.engine.world import World
    from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings
    from txlplan.planner import recipe
    from txlplan.workload import Workload

    keep_freed_memory()
    plan_file = PlanFile(
        system="this machine",
        stack="txlplan",
        workload=Workload(model=config, tokens=10**9, optimization=recipe(config, None)),
        plan=Plan(
            micro_batch=rows,
            precision="bf16" if bf16 else "fp32",
            attention=attention,
            compile=device.type == "cuda",
        ),
        data=DataSettings(directory="(random tokens)"),
        run=RunSettings(directory="(not kept)"),
    )
    backend = as_planned(Backend(device=device, precision="fp32", world=World()), plan_file.plan, "train")
    trainer = Trainer(plan_file, backend, cast("Dataset", _RandomTokens(config, rows)))
    return lambda: trainer.train_step().loss


class _RandomTokens:
    """A data set of a thousand segments."""

    def __init__(self, config: ModelConfig, rows: int) -> None:
        self._tokens = np.random.default_rng(1).integers(config.vocab_size, size=1000 * rows * config.tgt_len, dtype=np.uint16)

    def tokens(self, _split: str) -> np.ndarray:
        """Of any split."""
        return self._tokens


def _autocast(bf16: bool, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
