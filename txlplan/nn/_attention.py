"""Relative partial-learnable attention. The readable reference materialises every score; `_fast_attention` does not.

Shape suffixes: B sequences, T queries (the segment), M memory slots, S = M + T keys, H heads, K width of a head,
D d_model. The reference is the oracle for faster paths, and runs the operations of the original code: its one product
gives q, k and v for memory and segment alike.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from txlplan.choices import AttentionPath
from txlplan.model import ModelConfig
from txlplan.nn._attention_code import has_attention_code
from txlplan.nn._autocast import product_dtype
from txlplan.nn._compiled_attention import compiled_attention
from txlplan.nn._dropout import Dropout
from txlplan.nn._fast_attention import tiled_attention
from txlplan.nn._fused_attention import fused_attention
from txlplan.nn._linear import Linear, relu_between
from txlplan.nn._positions import relative_shift
from txlplan.nn._residual import Hidden, Residual, summed


class RelativeAttention(nn.Module):
    """One attention layer with its residual and norm: [B, T, D] and memory [B, M, D] to [B, T, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.n_head * config.d_head
        self._heads = (config.n_head, config.d_head)
        self._pre_norm = config.norm == "pre"
        self.path: AttentionPath | Literal["fused"] = "reference"
        if config.untie_r:
            self.content_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
            self.position_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.qkv = Linear(config.d_model, 3 * width, bias=False)
        self.position = Linear(config.d_model, width, bias=False)
        self.output = Linear(width, config.d_model, bias=False)
        self.norm = Residual(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.dropatt = Dropout(config.dropatt)

    def forward(
        self,
        hidden_BTD: Hidden,
        memory_BMD: Tensor,
        sinusoids_SD: Tensor,
        masked_keys: Tensor,
        biases: tuple[Tensor, Tensor] | None,
        *,
        again: bool = False,
    ) -> Hidden:
        """`biases` are u and v [H, K] where all layers share them; `masked_keys` broadcasts to [B, H, T, S].

        `again`: backward computes scores and probabilities again, instead of them being kept.
        """
        own = biases if biases is not None else (self.content_bias, self.position_bias)
        mix = self._reference if self.path == "reference" else self._fast
        r_SHK, x_BTD = self.position(sinusoids_SD).unflatten(-1, self._heads), hidden_BTD[0 if self._pre_norm else 1]
        mixed_BTW = mix(x_BTD, memory_BMD, r_SHK, masked_keys, own, again)
        return summed(hidden_BTD[0], self.dropout(self.output(mixed_BTW)), None if self._pre_norm else self.norm)

    def _fast(
        self, x_BTD: Tensor, memory_BMD: Tensor, r_SHK: Tensor, masked_keys: Tensor, biases: tuple[Tensor, Tensor], again: bool
    ) -> Tensor:
        if self._pre_norm:
            x_BTD, memory_BMD = self.norm(x_BTD), self.norm(memory_BMD.to(x_BTD.dtype))
        rate = self.dropatt.rate if self.training else 0.0
        arguments = (x_BTD, memory_BMD, self.qkv.weight, r_SHK, biases, masked_keys, rate, again)
        if x_BTD.is_cuda or self.path == "fused":
            return fused_attention(*arguments)
        own_code = self.path == "compiled" and has_attention_code(x_BTD.device, product_dtype(x_BTD))
        return compiled_attention(*arguments) if own_code else tiled_attention(*arguments)

    def _reference(
        self, x_BTD: Tensor, memory_BMD: Tensor, r_SHK: Tensor, masked_keys: Tensor, biases: tuple[Tensor, Tensor], again: bool
    ) -> Tensor:
        context_BSD = torch.cat([memory_BMD.to(x_BTD.dtype), x_BTD], dim=1)
        q_BTHK, k_BSHK, v_BSHK = self._queries_keys_values(self.norm(context_BSD) if self._pre_norm else context_BSD, x_BTD)
        arguments = (q_BTHK, k_BSHK, v_BSHK, r_SHK, masked_keys, biases)
        mixed_BTHK = checkpoint(self._attended, *arguments, use_reentrant=False) if again else self._attended(*arguments)
        return mixed_BTHK.flatten(2)

    def _attended(
        self,
        q_BTHK: Tensor,
        k_BSHK: Tensor,
        v_BSHK: Tensor,
        r_SHK: Tensor,
        masked_keys: Tensor,
        biases: tuple[Tensor, Tensor],
    ) -> Tensor:
        scores_BHTS = self._scores(q_BTHK + biases[0], q_BTHK + biases[1], k_BSHK, r_SHK)
        return self._mix(scores_BHTS.masked_fill(masked_keys, float("-inf")), v_BSHK)

    def _queries_keys_values(self, context_BSD: Tensor, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(context_BSD).unflatten(-1, (3, *self._heads)).unbind(2)
        return q[:, -x_BTD.shape[1] :], k, v

    def _scores(self, q_content: Tensor, q_position: Tensor, k_BSHK: Tensor, r_SHK: Tensor) -> Tensor:
        """((q + u)·k + (q + v)·W R) / sqrt(K), [B, H, T, S]."""
        content_BHTS = q_content.transpose(1, 2) @ k_BSHK.permute(0, 2, 3, 1)
        position_BHTS = q_position.transpose(1, 2) @ r_SHK.permute(1, 2, 0)
        return (content_BHTS + relative_shift(position_BHTS)) * self._heads[1] ** -0.5

    def _mix(self, scores_BHTS: Tensor, v_BSHK: Tensor) -> Tensor:
        """Values [B, T, H, K] weighted by the softmax, which runs in fp32 at least."""
        wide = torch.promote_types(scores_BHTS.dtype, torch.float32)
        probability_BHTS = self.dropatt(torch.softmax(scores_BHTS, dim=-1, dtype=wide)).to(v_BSHK.dtype)
        return (probability_BHTS @ v_BSHK.transpose(1, 2)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two products with a nonlinearity between them, with residual and norm: [B, T, D] to [B, T, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._pre_norm = config.norm == "pre"
        self._gelu = config.activation == "gelu"
        self.inner = Linear(config.d_model, config.d_inner)
        self.outer = Linear(config.d_inner, config.d_model)
        self.norm = Residual(config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden_BTD: Hidden, *, again: bool = False) -> Hidden:
        """Residual around dropout(W2 dropout(f(W1 x + b1)) + b2), normed before (pre) or after (post).

        `again`: backward computes the inner states again, instead of them being kept.
        """
        x_BTD, narrow_BTD = hidden_BTD
        normed_BTD = self.norm(x_BTD) if self._pre_norm else narrow_BTD
        outer_BTD = checkpoint(self._products, normed_BTD, use_reentrant=False) if again else self._products(normed_BTD)
        return summed(x_BTD, self.dropout(outer_BTD), None if self._pre_norm else self.norm)

    def _products(self, x_BTD: Tensor) -> Tensor:
        drops = self.training and self.dropout.rate > 0
        if not self._gelu and not drops and self.inner.is_ours(x_BTD) and self.outer.is_ours(x_BTD):
            return relu_between(x_BTD, self.inner, self.outer)
        inner_BTF = self.inner(x_BTD)
        out_BTD: Tensor = self.outer(self.dropout(F.gelu(inner_BTF)) if self._gelu else self.dropout.of_relu(inner_BTF))
        return out_BTD
