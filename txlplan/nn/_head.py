"""Log-probabilities of the next word, from weights that stay as they are.

Shape suffixes: B rows, D d_model, H words of the head, C words of a cluster, N further clusters, V vocabulary.
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
        self._sizes = config.cluster_sizes
        self._logits = [product(weight.detach(), bias.detach(), rows=rows) for weight, bias, _ in outputs]
        self._narrow = [None if narrow is None else product(narrow.detach().T, rows=rows) for _, _, narrow in outputs]

    def log_probabilities(self, hidden_BD: Tensor, *, likeliest: int | None = None) -> Tensor:
        """[B, V] in nats, in fp32 at least. `likeliest`: as of `Inference.log_probabilities`."""
        head_BC = self._cluster(0, hidden_BD)
        if len(self._sizes) == 1:
            return head_BC
        words_BH, clusters_BN = head_BC.tensor_split([self._sizes[0]], dim=1)
        parts = [words_BH]
        for cluster, left_out in enumerate(_left_out(words_BH, clusters_BN, likeliest), start=1):
            if left_out:
                parts.append(head_BC.new_full((len(head_BC), self._sizes[cluster]), float("-inf")))
            else:
                parts.append(self._cluster(cluster, hidden_BD) + clusters_BN[:, cluster - 1, None])
        return torch.cat(parts, dim=1)

    def _cluster(self, cluster: int, hidden_BD: Tensor) -> Tensor:
        narrow = self._narrow[cluster]
        logits_BC = self._logits[cluster](hidden_BD if narrow is None else narrow(hidden_BD))
        return torch.log_softmax(logits_BC, dim=-1, dtype=torch.promote_types(logits_BC.dtype, torch.float32))


def _left_out(words_BH: Tensor, clusters_BN: Tensor, likeliest: int | None) -> list[bool]:
    """Whether each further cluster holds none of the likeliest words of any row, as no word is likelier than its cluster.

    Never on a GPU, for which the host would have to wait, and never where a row's probabilities are no numbers.
    """
    if likeliest is None or words_BH.device.type != "cpu":
        return [False] * clusters_BN.shape[1]
    likelier_BN = (words_BH.unsqueeze(1) > clusters_BN.unsqueeze(2)).sum(dim=2)
    left_out: list[bool] = (likelier_BN >= likeliest).all(dim=0).tolist()
    return left_out
