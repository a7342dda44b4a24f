"""Sampling text: one token at a time, with recurrent memory, so that a token costs the same however long the text is.

Shape suffixes: B sequences, T tokens fed at once, V vocabulary, L layers, M memory slots, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from txlplan.engine.backend import Backend
from txlplan.nn import TransformerXL
from txlplan.plan_file import Sampling


class Generator:
    """Continues one prompt `batch` times. The same seed gives the same text on the same machine."""

    def __init__(self, model: TransformerXL, backend: Backend, sampling: Sampling, *, batch: int, seed: int) -> None:
        self._model = model.eval()
        self._backend = backend
        self._sampling = sampling
        self._batch = batch
        self._random = torch.Generator(device=backend.device).manual_seed(seed)
        self._memory_LBMD = model.initial_memory(batch, backend.device, torch.float32)
        self._valid_length = torch.zeros((), dtype=torch.int64, device=backend.device)

    def tokens(self, prompt: list[int]) -> Iterator[Tensor]:
        """Endless new tokens, int64 [B] each, after `prompt` (at least one token id)."""
        tgt_len = self._model.config.tgt_len
        for start in range(0, len(prompt), tgt_len):
            segment = prompt[start : start + tgt_len]
            log_BV = self._read(torch.tensor([segment] * self._batch, device=self._backend.device))
        while True:
            token_B = choose(log_BV, self._sampling, self._random)
            yield token_B
            log_BV = self._read(token_B[:, None])

    def _read(self, tokens_BT: Tensor) -> Tensor:
        """Log-probabilities [B, V] of what follows, after reading some tokens."""
        with torch.inference_mode(), self._backend.autocast():
            hidden_BTD, self._memory_LBMD = self._model(tokens_BT, self._memory_LBMD, self._valid_length)
            self._valid_length = self._model.advance(self._valid_length, tokens_BT.shape[1])
            return self._model.log_probabilities(hidden_BTD[:, -1]).float()


def choose(log_BV: Tensor, sampling: Sampling, random: torch.Generator) -> Tensor:
    """One token [B] a row: the likeliest at temperature 0, else drawn from the top_k likeliest at that temperature."""
    if sampling.temperature == 0:
        return log_BV.argmax(dim=-1)
    if sampling.top_k is not None and sampling.top_k < log_BV.shape[-1]:
        least_B1 = log_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        log_BV = log_BV.masked_fill(log_BV < least_B1, float("-inf"))
    probability_BV = torch.softmax(log_BV / sampling.temperature, dim=-1)
    return torch.multinomial(probability_BV, 1, generator=random).squeeze(-1)
