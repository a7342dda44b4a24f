"""Log-probabilities of the next word, from weights that stay as they are.

Shape suffixes: B rows, D d_model, C words of a cluster, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from txlplan.model import ModelConfig
from txlplan.nn._products import product

Outputs = tuple[Tensor, Tensor, Tensor | None]
"""Vectors and biases of a cluster's outputs, and its projection."""


class Head:
    """What `AdaptiveSoftmax.log_probabilities` gives, for `rows` rows at a time."""

    def __init__(self, config: ModelConfig, outputs: Sequence[Outputs], *, rows: int | None) -> None:
        self._n_words = config.cluster_sizes[0]
        self._logits = [product(weight.detach(), bias.detach(), rows=rows) for weight, bias, _ in outputs]
        self._narrow = [None if narrow is None else product(narrow.detach().T, rows=rows) for _, _, narrow in outputs]

    def log_probabilities(self, hidden_BD: Tensor) -> Tensor:
        """[B, V] in nats, in fp32 at least."""
        head, *tails = (self._cluster(cluster, hidden_BD) for cluster in range(len(self._logits)))
        parts = [head[:, : self._n_words]]
        parts += [tail_BC + head[:, self._n_words + index, None] for index, tail_BC in enumerate(tails)]
        return torch.cat(parts, dim=1) if tails else head

    def _cluster(self, cluster: int, hidden_BD: Tensor) -> Tensor:
        narrow = self._narrow[cluster]
        logits_BC = self._logits[cluster](hidden_BD if narrow is None else narrow(hidden_BD))
        return torch.log_softmax(logits_BC, dim=-1, dtype=torch.promote_types(logits_BC.dtype, torch.float32))
