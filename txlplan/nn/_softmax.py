"""Adaptive softmax (Grave et al. 2017, arXiv:1609.04309) with weights and projections tied to the input.

Shape suffixes: N positions (any leading dimensions flattened), n those of a cluster, m these made up to a multiple, D d_model,
E width of a cluster's embedding, C words of a cluster, H outputs of the head (its words, then one per further cluster), V
vocabulary.

A word of a further cluster has the probability of its cluster in the head times its probability within the cluster.
Row i of `cluster_weight` belongs to cluster i + 1; the original code keeps these rows in reverse order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from txlplan.model import ModelConfig
from txlplan.model._parameters import table_shapes, untied_projections
from txlplan.model._tiles import CLUSTER_ROWS, loss_chunks
from txlplan.nn._chunked_loss import chunked_cross_entropy
from txlplan.nn._embedding import PROJECTION_INIT_STD, AdaptiveEmbedding
from txlplan.nn._wide_products import entered, left, rows_vary


class AdaptiveSoftmax(nn.Module):
    """A full softmax where the model has no cutoffs. Logarithms are taken in fp32 (fp64 for an fp64 model)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shapes = table_shapes(config)
        self.as_on_gpu = False
        """In chunks as large as a GPU's, of rows as they are found, on any device."""
        self._bounds = tuple(accumulate(config.cluster_sizes, initial=0))
        if config.n_clusters > 1:
            self.cluster_weight = nn.Parameter(
                torch.empty(config.n_clusters - 1, config.embed_width).normal_(std=config.init_std)
            )
            self.cluster_bias = nn.Parameter(torch.zeros(config.n_clusters - 1))
            # Its gradient is a few rows of that of the head: as a view of it, it would keep the whole alive until the update.
            self.cluster_weight.register_hook(torch.clone)
        self.biases = nn.ParameterList(torch.zeros(words) for words, _ in shapes)
        own = () if config.tie_weights else shapes
        self.tables = nn.ParameterList(torch.empty(shape).normal_(std=config.init_std) for shape in own)
        self.projections = nn.ParameterDict(
            {
                str(cluster): torch.empty(config.d_model, config.cluster_widths[cluster]).normal_(std=PROJECTION_INIT_STD)
                for cluster in untied_projections(config)
            }
        )

    def members(self, targets_N: Tensor) -> list[Tensor]:
        """Which of the targets [N] are words of each further cluster: [n] each, on the device of the targets.

        Of targets on a GPU the host waits for all that this has been asked for: ask for it of those on the CPU.
        """
        bounds = pairwise(self._bounds[1:])
        return [torch.nonzero((targets_N >= start) & (targets_N < stop)).squeeze(1) for start, stop in bounds]

    def nll(
        self, hidden_ND: Tensor, targets_N: Tensor, embedding: AdaptiveEmbedding, members: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Negative log-likelihood [N] in nats of int64 targets [N]; `members` are theirs, where they are known.

        Each further cluster is evaluated for its own targets only: sizes depend on the data, control flow does not, so
        that every parameter gets a gradient whatever the targets are. (With clusters, FakeTensorMode needs a ShapeEnv.)
        """
        rows, words = len(hidden_ND), self._words(embedding)
        nll_N = self._cluster_nll(rows, self._narrowed(0, hidden_ND, embedding), words[0], self._head_targets(targets_N))
        for cluster, here_n in enumerate(self.members(targets_N) if members is None else members, start=1):
            index_m = self._made_up(here_n, hidden_ND)
            chosen_mD = hidden_ND.index_select(0, index_m)
            within_m = targets_N.index_select(0, index_m) - self._bounds[cluster]
            most = rows if index_m is here_n else max(rows, len(index_m))
            with rows_vary():
                chosen_mD = entered(chosen_mD)
                nll_m = self._cluster_nll(most, self._narrowed(cluster, chosen_mD, embedding), words[cluster], within_m)
                nll_m = left(nll_m, chosen_mD)
            nll_N = nll_N.index_add(0, here_n, nll_m if index_m is here_n else nll_m[: len(here_n)])
        return nll_N

    def _made_up(self, here_n: Tensor, hidden_ND: Tensor) -> Tensor:
        """The rows of a further cluster, on a CPU and in 2 bytes with the first again up to a multiple [m]; none stay none.

        A number of rows that is not known (of fake tensors) stays as it is.
        """
        if self.as_on_gpu or hidden_ND.device.type != "cpu" or not isinstance(here_n.shape[0], int):
            return here_n
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_ND.dtype
        missing = -len(here_n) % CLUSTER_ROWS if dtype.itemsize == 2 else 0
        return torch.cat([here_n, here_n[:1].expand(missing)]) if missing else here_n

    def _cluster_nll(self, rows: int, narrow_NE: Tensor, words: tuple[Tensor, Tensor], targets_N: Tensor) -> Tensor:
        """Of targets among a cluster's words; in chunks where the logits of `rows`, all that they can be, would be many."""
        if (chunks := loss_chunks(rows, len(words[1]), on_gpu=self.as_on_gpu or narrow_NE.is_cuda)) > 1:
            return chunked_cross_entropy(narrow_NE, *words, targets_N, chunks)
        return _cross_entropy(F.linear(narrow_NE, *words), targets_N)

    def log_probabilities(self, hidden_ND: Tensor, embedding: AdaptiveEmbedding) -> Tensor:
        """Log-probabilities [N, V] in nats."""
        head_NH = _log_softmax(self._logits(0, hidden_ND, embedding))
        words = self._bounds[1]
        parts = [head_NH[:, :words]]
        for cluster in range(1, self._n_clusters):
            within_NC = _log_softmax(self._logits(cluster, hidden_ND, embedding))
            parts.append(within_NC + head_NH[:, words + cluster - 1, None])
        return torch.cat(parts, dim=1)

    @property
    def _n_clusters(self) -> int:
        return len(self._bounds) - 1

    def outputs(self, cluster: int, embedding: AdaptiveEmbedding) -> tuple[Tensor, Tensor, Tensor | None]:
        """Output vectors and biases of a cluster (the head's include those of the further clusters), and its projection."""
        return *self._words(embedding)[cluster], self._projection(cluster, embedding)

    def _head_targets(self, targets_N: Tensor) -> Tensor:
        """Index in the head's outputs: of the word itself, or of the cluster it is in."""
        for cluster in range(1, self._n_clusters):
            start, stop = self._bounds[cluster : cluster + 2]
            inside_N = (targets_N >= start) & (targets_N < stop)
            targets_N = torch.where(inside_N, self._bounds[1] + cluster - 1, targets_N)
        return targets_N

    def _logits(self, cluster: int, hidden_ND: Tensor, embedding: AdaptiveEmbedding) -> Tensor:
        return F.linear(self._narrowed(cluster, hidden_ND, embedding), *self._words(embedding)[cluster])

    def _words(self, embedding: AdaptiveEmbedding) -> list[tuple[Tensor, Tensor]]:
        """Vectors [C, E] and biases [C] of each cluster's words; those of the head [H, E] end with the further clusters.

        Clusters of one table are split from it in one operation, so that its gradient is put together once.
        """
        tables = self.tables if len(self.tables) else embedding.tables
        if self._n_clusters == 1:
            return [(tables[0], self.biases[0])]
        if len(tables) > 1:
            words = list(zip(tables, self.biases, strict=True))
        else:
            sizes = [stop - start for start, stop in pairwise(self._bounds)]
            words = list(zip(tables[0].split(sizes), self.biases[0].split(sizes), strict=True))
        head_CE, head_C = words[0]
        return [(torch.cat([head_CE, self.cluster_weight]), torch.cat([head_C, self.cluster_bias])), *words[1:]]

    def _narrowed(self, cluster: int, hidden_ND: Tensor, embedding: AdaptiveEmbedding) -> Tensor:
        """Hidden states in the width of a cluster's embedding."""
        projection_DE = self._projection(cluster, embedding)
        return hidden_ND if projection_DE is None else hidden_ND @ projection_DE

    def _projection(self, cluster: int, embedding: AdaptiveEmbedding) -> Tensor | None:
        """[D, E], or None where hidden states are as wide as the words."""
        name = str(cluster)
        return self.projections[name] if name in self.projections else embedding.output_projection(cluster)


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _cross_entropy(logits_NC: Tensor, targets_N: Tensor) -> Tensor:
    wide = torch.promote_types(logits_NC.dtype, torch.float32)
    return F.cross_entropy(logits_NC.to(wide), targets_N, reduction="none")
