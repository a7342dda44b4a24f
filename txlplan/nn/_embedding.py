"""Adaptive input embedding (Baevski & Auli 2019, arXiv:1809.10853), with static shapes.

Shape suffixes: B sequences, T tokens of a segment, D d_model, E width of one cluster's embedding.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from txlplan.model import ModelConfig
from txlplan.model._parameters import has_projections, table_shapes

PROJECTION_INIT_STD = 0.01
"""`proj_init_std` of the original code."""


class AdaptiveEmbedding(nn.Module):
    """Rare words have narrower embeddings, projected to d_model; everything is scaled by sqrt(d_model)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shapes = table_shapes(config)
        projected = shapes if has_projections(config) else ()
        self._scale = config.d_model**0.5
        self._starts = tuple(accumulate((words for words, _ in shapes), initial=0))
        self.tables = nn.ParameterList(torch.empty(shape).normal_(std=config.init_std) for shape in shapes)
        self.projections = nn.ParameterList(
            torch.empty(config.d_model, width).normal_(std=PROJECTION_INIT_STD) for _, width in projected
        )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Embed int64 word ids [B, T] as [B, T, D].

        Every table is read for every token and what belongs to other clusters is zeroed: a product more per cluster than
        the original's boolean indexing, but no shape depends on the data.
        """
        if len(self.tables) == 1:
            return self._project(0, F.embedding(tokens_BT, self.tables[0])) * self._scale
        parts = [self._project(cluster, self._rows(cluster, tokens_BT)) for cluster in range(len(self.tables))]
        return sum(parts[1:], parts[0]) * self._scale

    def _rows(self, cluster: int, tokens_BT: Tensor) -> Tensor:
        """Embeddings [B, T, E] of the tokens that belong to a cluster, zero for the others."""
        start, stop = self._starts[cluster : cluster + 2]
        rows_BTE = F.embedding((tokens_BT - start).clamp(0, stop - start - 1), self.tables[cluster])
        inside_BT1 = ((tokens_BT >= start) & (tokens_BT < stop)).unsqueeze(-1)
        return rows_BTE.masked_fill(~inside_BT1, 0.0)

    def _project(self, cluster: int, rows_BTE: Tensor) -> Tensor:
        return F.linear(rows_BTE, self.projections[cluster]) if len(self.projections) else rows_BTE

    def output_projection(self, cluster: int) -> Tensor | None:
        """[D, E] that the softmax of a cluster shares where projections are tied; None where there is none."""
        if not len(self.projections):
            return None
        return self.projections[cluster if len(self.tables) > 1 else 0]
