"""Generating: one token of each row at a time, with recurrent memory, so that a token costs the same however long the text is.

Shape suffixes: B rows, T tokens fed at once, V vocabulary, L layers, M memory slots, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from txlplan.engine.backend import Backend
from txlplan.engine.sampling import choose, penalised
from txlplan.nn import TransformerXL
from txlplan.plan_file import Sampling

Prompt = tuple[int, ...]


class Generator:
    """Continues prompts, each a row. The same seed gives the same tokens on the same machine."""

    def __init__(self, model: TransformerXL, backend: Backend, sampling: Sampling, *, seed: int) -> None:
        self._model = model.eval()
        self._backend = backend
        self._sampling = sampling
        self._random = torch.Generator(device=backend.device).manual_seed(seed)

    def tokens(self, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Endless new tokens, int64 [B] each, after `prompts` (at least one token id each, of any lengths)."""
        log_BV = self._read_prompts([tuple(prompt) for prompt in prompts])
        seen_BV = self._seen(prompts) if self._sampling.repetition_penalty != 1 else None
        while True:
            if seen_BV is not None:
                log_BV = penalised(log_BV, seen_BV, self._sampling.repetition_penalty)
            token_B = choose(log_BV, self._sampling, self._random)
            yield token_B
            if seen_BV is not None:
                seen_BV.scatter_(1, token_B[:, None], True)
            log_BV = self._read(token_B[:, None])

    def _read_prompts(self, prompts: Sequence[Prompt]) -> Tensor:
        """Log-probabilities [B, V] of what follows each; memories of unequal prompts stand side by side, newest slot last."""
        logs, memories, lengths = {}, {}, {}
        for prompt in dict.fromkeys(prompts):
            logs[prompt] = self._read_prompt(prompt)
            memories[prompt], lengths[prompt] = self._memory_LBMD, self._valid_length
        self._memory_LBMD = torch.cat([memories[prompt] for prompt in prompts], dim=1)
        alike = len({int(length) for length in lengths.values()}) == 1
        valid_B = torch.stack([lengths[prompt] for prompt in prompts])
        self._valid_length = valid_B[0] if alike else valid_B
        return torch.cat([logs[prompt] for prompt in prompts])

    def _read_prompt(self, prompt: Prompt) -> Tensor:
        """Log-probabilities [1, V] of what follows a prompt, read in segments from an empty memory."""
        tgt_len, device = self._model.config.tgt_len, self._backend.device
        self._memory_LBMD = self._model.initial_memory(1, device, torch.float32)
        self._valid_length = torch.zeros((), dtype=torch.int64, device=device)
        for start in range(0, len(prompt), tgt_len):
            log_1V = self._read(torch.tensor([prompt[start : start + tgt_len]], device=device))
        return log_1V

    def _read(self, tokens_BT: Tensor) -> Tensor:
        """Log-probabilities [B, V] of what follows, after reading some tokens."""
        with torch.inference_mode(), self._backend.autocast():
            hidden_BTD, self._memory_LBMD = self._model(tokens_BT, self._memory_LBMD, self._valid_length)
            self._valid_length = self._model.advance(self._valid_length, tokens_BT.shape[1])
            return self._model.log_probabilities(hidden_BTD[:, -1]).float()

    def _seen(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Which tokens [B, V] each prompt holds."""
        seen_BV = torch.zeros(len(prompts), self._model.config.vocab_size, dtype=torch.bool, device=self._backend.device)
        for row, prompt in enumerate(prompts):
            seen_BV[row, list(prompt)] = True
        return seen_BV
