"""Generating: one token of each row at a time, with keys and values kept, so that a token costs the same however long the text.

Shape suffixes: B rows, T tokens fed at once, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from txlplan.engine.backend import Backend
from txlplan.engine.sampling import choose, likeliest, penalised
from txlplan.nn import Inference, KeyValueRing, TransformerXL
from txlplan.plan_file import Sampling

Prompt = tuple[int, ...]


class Generator:
    """Continues prompts, each a row. The same seed gives the same tokens on the same machine.

    `compiled`: tokens are read by compiled code; raises what torch raises where it cannot compile, before any token.
    """

    def __init__(
        self, model: TransformerXL, backend: Backend, sampling: Sampling, *, rows: int, seed: int, compiled: bool = False
    ) -> None:
        self._config = model.config
        self._reader = Inference(model, rows=rows, dtype=backend.narrow_dtype, compiled=compiled)
        self._device = backend.device
        self._sampling = sampling
        self._random = torch.Generator(device=backend.device).manual_seed(seed)

    def tokens(self, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Endless new tokens, int64 [B] each, after `prompts` (one a row, at least one token id each, of any lengths)."""
        log_BV, ring = self._read_prompts([tuple(prompt) for prompt in prompts])
        seen_BV = self._seen(prompts) if self._sampling.repetition_penalty != 1 else None
        while True:
            if seen_BV is not None:
                log_BV = penalised(log_BV, seen_BV, self._sampling.repetition_penalty)
            token_B = choose(log_BV, self._sampling, self._random)
            yield token_B
            if seen_BV is not None:
                seen_BV.scatter_(1, token_B[:, None], True)
            log_BV = self._read(token_B[:, None], ring)

    def _read_prompts(self, prompts: Sequence[Prompt]) -> tuple[Tensor, KeyValueRing]:
        """Log-probabilities [B, V] of what follows each prompt, and their memories side by side."""
        ring = self._reader.ring(len(prompts), longest=1)
        logs: dict[Prompt, Tensor] = {}
        for prompt in dict.fromkeys(prompts):
            logs[prompt], memory = self._read_prompt(prompt)
            for row, each in enumerate(prompts):
                if each == prompt:
                    ring.remember(row, memory)
        return torch.cat([logs[prompt] for prompt in prompts]), ring

    def _read_prompt(self, prompt: Prompt) -> tuple[Tensor, KeyValueRing]:
        """Log-probabilities [1, V] of what follows a prompt, read in segments from an empty memory, and its memory."""
        tgt_len = self._config.tgt_len
        ring = self._reader.ring(1, longest=tgt_len)
        for start in range(0, len(prompt), tgt_len):
            log_1V = self._read(torch.tensor([prompt[start : start + tgt_len]], device=self._device), ring)
        return log_1V, ring

    def _read(self, tokens_BT: Tensor, ring: KeyValueRing) -> Tensor:
        """Log-probabilities [B, V] of what follows, after reading some tokens: of those that may be chosen."""
        hidden_BD = self._reader.read(tokens_BT, ring)[:, -1]
        return self._reader.log_probabilities(hidden_BD, likeliest=likeliest(self._sampling)).float()

    def _seen(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Which tokens [B, V] each prompt holds."""
        seen_BV = torch.zeros(len(prompts), self._config.vocab_size, dtype=torch.bool, device=self._device)
        for row, prompt in enumerate(prompts):
            seen_BV[row, list(prompt)] = True
        return seen_BV
