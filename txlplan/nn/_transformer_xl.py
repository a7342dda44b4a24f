"""Transformer-XL (Dai et al. 2019, arXiv:1901.02860): segment recurrence over a stack of relative attention layers.

Shape suffixes: B sequences, T tokens of a segment, M = mem_len memory slots, S = M + T keys, D d_model, L layers,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from txlplan.choices import AttentionPath, Checkpointing
from txlplan.model import ModelConfig
from txlplan.nn._attention import FeedForward, RelativeAttention
from txlplan.nn._captured import ThroughLayers, captured_layers
from txlplan.nn._dropout import Dropout
from txlplan.nn._embedding import AdaptiveEmbedding
from txlplan.nn._linear import Linear
from txlplan.nn._positions import key_mask, sinusoids
from txlplan.nn._residual import Hidden, Residual
from txlplan.nn._softmax import AdaptiveSoftmax


class Layer(nn.Module):
    """Attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = RelativeAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        hidden_BTD: Hidden,
        memory_BMD: Tensor,
        sinusoids_SD: Tensor,
        masked_keys: Tensor,
        biases: tuple[Tensor, Tensor] | None,
        again: Checkpointing = "none",
    ) -> Hidden:
        """Of [B, T, D]; arguments as of RelativeAttention. `again`: the part that backward computes again."""
        attended_BTD = self.attention(hidden_BTD, memory_BMD, sinusoids_SD, masked_keys, biases, again=again == "attention")
        out_BTD: Hidden = self.feed_forward(attended_BTD, again=again == "feed-forward")
        return out_BTD


class TransformerXL(nn.Module):
    """The language model. `forward` is pure: what it remembers goes in and comes out.

    `activation_checkpointing`: what backward computes again, with the same dropout, of the first `checkpointed_layers`
    layers (None: of all). "full" keeps only a layer's input; "attention" all but scores and probabilities; "feed-forward"
    all but the inner states.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing: Checkpointing = "none"
        self.checkpointed_layers: int | None = None
        self._captured: ThroughLayers | None = None
        self.embedding = AdaptiveEmbedding(config)
        if not config.untie_r:
            self.content_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
            self.position_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.softmax = AdaptiveSoftmax(config)
        self.dropout = Dropout(config.dropout)
        self._initialise(config.init_std)

    def use_attention(self, path: AttentionPath | Literal["fused"]) -> None:
        """Compute attention by the readable reference (as a new module does) or by the fast path, equal to it.

        `fused` is the fast path as it is on CUDA, on any device; the loss then too. `compiled` is code of our own on a CPU, and
        so is all dropout then.
        """
        self.softmax.as_on_gpu = path == "fused"
        for module in self.modules():
            if isinstance(module, Dropout | Linear | Residual):
                module.compiled = path == "compiled"
        for layer in self.layers:
            layer.attention.path = path

    def _initialise(self, std: float) -> None:
        """As the original: weights, u and v normal(0, std), norms' weights normal(1, std), biases 0; tables made so already."""
        for name, parameter in self.named_parameters():
            if name.startswith(("embedding.", "softmax.")):
                continue
            if name.endswith("norm.weight"):
                nn.init.normal_(parameter, 1.0, std)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, 0.0, std)

    def initial_memory(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """An empty memory: zeros [L, B, M, D]. Its valid length is zero."""
        return torch.zeros(self.config.n_layer, batch, self.config.mem_len, self.config.d_model, device=device, dtype=dtype)

    def forward(self, tokens_BT: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, T, D] of a segment of int64 word ids, and the memory for the next segment.

        `valid_length` (int64, [] or [B]) is how many slots hold real states; they are the last ones, and the others are
        not attended to. A layer's memory holds its inputs of the last M tokens, in the dtype of the memory given, without
        gradient. T may differ from the configuration's tgt_len.
        """
        x_BTD = self.dropout(self.embedding(tokens_BT))
        run = self._captured if self._captured is not None and self.training else self.layers_and_memory
        return run(x_BTD, memory_LBMD, valid_length)

    def layers_and_memory(self, x_BTD: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` does between the words' embeddings [B, T, D] and the hidden states."""
        hidden_BTD, inputs = self._through_layers(x_BTD, memory_LBMD, valid_length)
        return hidden_BTD, _remember(memory_LBMD, inputs)

    def capture(self, tokens_BT: Tensor, autocast: AbstractContextManager[Any]) -> None:
        """From now on the layers train as two graphs of kernels, on segments of words like these; see `_captured`.

        `autocast` keeps no copies of weights. Weights must stay where they are. Random numbers go on from where they are.
        Raises what torch raises where it cannot capture them; they run as before then.
        """
        state = torch.cuda.get_rng_state(tokens_BT.device)
        try:
            with autocast:
                x_BTD = self.dropout(self.embedding(tokens_BT)).detach().requires_grad_()
                memory_LBMD = self.initial_memory(len(tokens_BT), x_BTD.device)
                self._captured = captured_layers(self, x_BTD, memory_LBMD)
        finally:
            torch.cuda.set_rng_state(state, tokens_BT.device)

    @property
    def is_captured(self) -> bool:
        """Whether the layers train as graphs."""
        return self._captured is not None

    def states(self, tokens_BT: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, with the input [B, T, D] of each layer, without gradient, instead of the memory that they become."""
        return self._through_layers(self.dropout(self.embedding(tokens_BT)), memory_LBMD, valid_length)

    def _through_layers(self, x_BTD: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, list[Tensor]]:
        config = self.config
        queries = x_BTD.shape[1]
        window = config.mem_len if config.same_length else None
        masked_keys = key_mask(queries, config.mem_len, valid_length.to(x_BTD.device), window)
        sinusoids_SD = self.dropout(sinusoids(config.mem_len + queries, config.d_model, config.clamp_len, x_BTD))
        biases = None if config.untie_r else (self.content_bias, self.position_bias)
        inputs, hidden_BTD = [], (x_BTD, x_BTD)
        for number, (layer, memory_BMD) in enumerate(zip(self.layers, memory_LBMD.unbind(0), strict=True)):
            inputs.append(hidden_BTD[0].detach())
            hidden_BTD = self._run(number, layer, hidden_BTD, memory_BMD, sinusoids_SD, masked_keys, biases)
        return self.dropout(hidden_BTD[0]), inputs

    def _run(self, number: int, layer: nn.Module, *arguments: Tensor | tuple[Tensor, Tensor] | None) -> Hidden:
        chosen = self.checkpointed_layers is None or number < self.checkpointed_layers
        kind = self.activation_checkpointing if chosen and torch.is_grad_enabled() else "none"
        if kind == "full":
            out_BTD: Hidden = checkpoint(layer, *arguments, use_reentrant=False)
        else:
            out_BTD = layer(*arguments, again=kind)
        return out_BTD

    def advance(self, valid_length: Tensor, tokens: int | None = None) -> Tensor:
        """The valid length after a segment of `tokens` tokens (None: tgt_len): its sum with them, at most mem_len."""
        return (valid_length + (self.config.tgt_len if tokens is None else tokens)).clamp(max=self.config.mem_len)

    def nll(self, hidden_BTD: Tensor, targets_BT: Tensor, members: Sequence[Tensor] | None = None) -> Tensor:
        """Negative log-likelihood [B, T] of the targets in nats, in fp32 (fp64 for an fp64 model).

        `members`: what `softmax.members` says of the targets, flattened, where that is known before.
        """
        nll_N = self.softmax.nll(hidden_BTD.flatten(0, 1), targets_BT.flatten(), self.embedding, members)
        return nll_N.view(targets_BT.shape)

    def log_probabilities(self, hidden_BD: Tensor) -> Tensor:
        """Log-probabilities [B, V] of the next word, in nats."""
        return self.softmax.log_probabilities(hidden_BD, self.embedding)


def _remember(memory_LBMD: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The last M states of memory and segment, as a tensor of their own [L, B, M, D]. `inputs`: a layer's, [B, T, D] each."""
    slots, tokens = memory_LBMD.shape[2], inputs[0].shape[1]
    new_LBMD = torch.stack([each[:, max(tokens - slots, 0) :] for each in inputs]).to(memory_LBMD.dtype)
    return new_LBMD if tokens >= slots else torch.cat([memory_LBMD[:, :, tokens:].detach(), new_LBMD], dim=2)
