"""A model's layers as two CUDA graphs of kernels, forward and backward, each started by the host at once.

An eager training step dispatches thousands of kernels, and on small micro-batches a GPU waits for its host. What stays eager
is what depends on the words themselves: their embeddings, and the loss over an adaptive softmax.

Shape suffixes: B sequences, T tokens of a segment, D d_model, L layers, M memory slots.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from txlplan.nn._transformer_xl import TransformerXL

ThroughLayers = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Hidden states [B, T, D] and the new memory [L, B, M, D], from embeddings [B, T, D], the memory and its valid length."""


def captured_layers(model: TransformerXL, x_BTD: Tensor, memory_LBMD: Tensor) -> ThroughLayers:
    """`layers_and_memory` of a model for inputs like these. What it returns is overwritten by the next call.

    Random numbers are drawn anew at each call.
    """
    valid_length = torch.zeros((), dtype=torch.int64, device=x_BTD.device)
    stream = torch.cuda.current_stream(x_BTD.device)
    try:
        captured = torch.cuda.make_graphed_callables(_Layers(model), (x_BTD, memory_LBMD, valid_length))
    except RuntimeError as error:
        # What ends a capture that has failed raises too, before the stream is what it was.
        torch.cuda.set_stream(stream)
        raise (error.__context__ if isinstance(error.__context__, torch.OutOfMemoryError) else error) from None

    def through_layers(x_BTD: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, Tensor]:
        """To autograd all that the graph returns comes of its inputs, the memory too."""
        hidden_BTD, new_memory_LBMD = captured(x_BTD, memory_LBMD, valid_length)
        return hidden_BTD, new_memory_LBMD.detach()

    return through_layers


class _Layers(nn.Module):
    """The layers alone, so that their parameters are those whose gradients the graph gives. Does not keep the model alive."""

    def __init__(self, model: TransformerXL) -> None:
        super().__init__()
        self._model = weakref.ref(model)
        self.layers = model.layers
        if not model.config.untie_r:
            self.content_bias, self.position_bias = model.content_bias, model.position_bias

    def forward(self, x_BTD: Tensor, memory_LBMD: Tensor, valid_length: Tensor) -> tuple[Tensor, Tensor]:
        model = self._model()
        assert model is not None, "the model that was captured is gone"
        return model.layers_and_memory(x_BTD, memory_LBMD, valid_length)
