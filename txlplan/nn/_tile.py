"""Scores of one tile: a few heads of one sequence against a block of queries and the keys that these may see.

Shape suffixes: G heads of the tile, t its queries, s its keys, R > s rows of distances (the last ones are dummies), K width
of a head.

Position scores [G, t, R] have more columns than there are keys. Read with rows of R - 1 elements from the (t - 1)th on, row
i begins one distance later than row i - 1: the relative shift moves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from txlplan.model._tiles import Block, distance_rows

_aten = torch.ops.aten


def shifted(position_GtR: Tensor, keys: int) -> Tensor:
    """Column j of row i holds the score of distance s - t + i - j, [G, t, s]: a view, as `relative_shift` copies it."""
    G, t, R = position_GtR.shape
    return position_GtR.as_strided((G, t, keys), (t * R, R - 1, 1), position_GtR.storage_offset() + t - 1)


def _columns(x_GsK: Tensor) -> Tensor:
    """Transposed. oneDNN, which multiplies what is narrow, copies what is not dense, rows much faster than columns."""
    return (x_GsK.contiguous() if x_GsK.element_size() == 2 else x_GsK).transpose(1, 2)


class Tile:
    """What is computed of one tile after the other, all of one block, in buffers that tiles of other blocks use too.

    Queries come with their bias and the scale 1/sqrt(K) in them. The last of `buffers_NX` [2 or more, elements of the largest
    tile] takes gradients of scores: with two, probabilities that they are computed from are kept elsewhere.
    """

    def __init__(self, block: Block, buffers_NX: Tensor) -> None:
        def buffer(number: int, columns: int) -> Tensor:
            elements = block.heads * block.queries * columns
            return buffers_NX[number, :elements].view(block.heads, block.queries, columns)

        self._position_GtR = buffer(0, distance_rows(block.keys))
        self._scores_Gts, self._gradient_Gts = buffer(1, block.keys), buffer(-1, block.keys)

    def probabilities(
        self, content_GtK: Tensor, position_GtK: Tensor, k_GsK: Tensor, r_GRK: Tensor, masked_ts: Tensor, out: Tensor | None
    ) -> Tensor:
        """Softmax over keys [G, t, s], in `out` where that is given, else in a buffer that the next tile overwrites."""
        torch.bmm(position_GtK, _columns(r_GRK), out=self._position_GtR)
        of_position = shifted(self._position_GtR, k_GsK.shape[1])
        scores = torch.baddbmm(of_position, content_GtK, _columns(k_GsK), out=self._scores_Gts)
        scores.masked_fill_(masked_ts, float("-inf"))
        result: Tensor = _aten._softmax.out(scores, -1, False, out=scores if out is None else out)
        return result

    def score_gradient(
        self, out_GtK: Tensor, v_GsK: Tensor, probability_Gts: Tensor, keep_Gts: Tensor | None, scale: float
    ) -> Tensor:
        """Gradient of the scores [G, t, s], given that of the weighted values; dropped probabilities pass none."""
        gradient = torch.bmm(out_GtK, _columns(v_GsK), out=self._gradient_Gts)
        if keep_Gts is not None:
            torch.mul(gradient, keep_Gts, out=gradient).mul_(scale)
        result: Tensor = _aten._softmax_backward_data.out(gradient, probability_Gts, -1, gradient.dtype, grad_input=gradient)
        return result

    def unshifted(self, gradient_Gts: Tensor) -> Tensor:
        """Gradient of the position scores [G, t, R] where `gradient_Gts` is that of their shifted view."""
        self._position_GtR.zero_()
        shifted(self._position_GtR, gradient_Gts.shape[2]).copy_(gradient_Gts)
        return self._position_GtR
