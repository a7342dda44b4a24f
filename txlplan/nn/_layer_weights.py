"""One layer's weights as inference uses them, and what the layer does beside attending.

Shape suffixes: X any leading dimensions (rows, tokens), D d_model, H heads, K width of a head, W = H·K, S distances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from txlplan.nn._products import Product, product
from txlplan.nn._transformer_xl import Layer, TransformerXL


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerProducts:
    """The products of a layer with its norms; residuals stay in the dtype of the norms."""

    qkv: Product
    output: Product
    inner: Product
    outer: Product
    attention_norm: nn.LayerNorm
    feed_forward_norm: nn.LayerNorm
    pre_norm: bool
    heads: tuple[int, int]

    def queries_keys_values(self, x_XD: Tensor) -> Tensor:
        """[X, 3, H, K]."""
        return self.qkv(self.attention_norm(x_XD) if self.pre_norm else x_XD).unflatten(-1, (3, *self.heads))

    def after_attention(self, x_XD: Tensor, mixed_XW: Tensor) -> Tensor:
        """The layer's output [X, D] from its input and the weighted values."""
        x_XD = x_XD + self.output(mixed_XW)
        if self.pre_norm:
            return x_XD + self.outer(self.inner(self.feed_forward_norm(x_XD)))
        x_XD = self.attention_norm(x_XD)
        return self.feed_forward_norm(x_XD + self.outer(self.inner(x_XD)))


class LayerWeights:
    """Products for segments of tokens, and for one token of each of `rows` rows (None: not wanted), for a compiler or not."""

    def __init__(
        self, layer: Layer, model: TransformerXL, dtype: torch.dtype, rows: int | None, *, compiled: bool = False
    ) -> None:
        biases = layer.attention if model.config.untie_r else model
        self.u_HK, self.v_HK = biases.content_bias.detach(), biases.position_bias.detach()
        self._position_WD = layer.attention.position.weight.detach().to(dtype)
        self._heads = (model.config.n_head, model.config.d_head)
        self.weights = _cast(layer, dtype)
        self.segment = self._products(layer, model, None, compiled=False)
        self.token = self.segment if rows is None else self._products(layer, model, rows, compiled=compiled)

    def read_token(
        self, x_BD: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor, mask_BS: Tensor | None, attend: Attend
    ) -> Tensor:
        """The layer's output [B, D] of one token a row, whose key and value are written into the last slots."""
        q_BHK, k_BHK, v_BHK = self.token.queries_keys_values(x_BD).unbind(1)
        keys_BHSK[:, :, -1] = k_BHK
        values_BHSK[:, :, -1] = v_BHK
        mixed_BW = attend(q_BHK, self.u_HK, self.v_HK, keys_BHSK, values_BHSK, r_HSK, mask_BS)
        return self.token.after_attention(x_BD, mixed_BW).to(x_BD.dtype)

    def _products(self, layer: Layer, model: TransformerXL, rows: int | None, *, compiled: bool) -> LayerProducts:
        def of(name: str) -> Product:
            activation = model.config.activation if name == "inner" else "none"
            return product(*self.weights[name], rows=rows, activation=activation, compiled=compiled)

        return LayerProducts(
            qkv=of("qkv"),
            output=of("output"),
            inner=of("inner"),
            outer=of("outer"),
            attention_norm=layer.attention.norm,
            feed_forward_norm=layer.feed_forward.norm,
            pre_norm=model.config.norm == "pre",
            heads=self._heads,
        )

    def positions(self, sinusoids_SD: Tensor) -> Tensor:
        """W_r R, [H, S, K]."""
        r_SHK = F.linear(sinusoids_SD.to(self._position_WD.dtype), self._position_WD).unflatten(-1, self._heads)
        return r_SHK.transpose(0, 1).contiguous()


Attend = Callable[..., Tensor]
"""`attend_token` or its equal."""
_Pair = tuple[Tensor, Tensor | None]


def _cast(layer: Layer, dtype: torch.dtype) -> dict[str, _Pair]:
    """Weights and biases in `dtype`: the model's own tensors where that is theirs already."""
    linears = {
        "qkv": layer.attention.qkv,
        "output": layer.attention.output,
        "inner": layer.feed_forward.inner,
        "outer": layer.feed_forward.outer,
    }
    return {
        name: (linear.weight.detach().to(dtype), None if linear.bias is None else linear.bias.detach().to(dtype))
        for name, linear in linears.items()
    }
