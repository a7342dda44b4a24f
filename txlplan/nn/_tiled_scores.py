"""Attention over all tiles of a micro-batch, forward and backward.

Shape suffixes: B sequences, T queries, M memory slots, S = M + T keys, H heads, K width of a head, R > S rows of distances
(the last ones are dummies; of a block fewer); G heads, t queries and s keys of one tile. Heads come before positions, so that
those of one head lie close together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from txlplan.model._tiles import VECTOR, Block, blocks, distance_rows
from txlplan.nn._tile import Tile


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one tile lies in the tensors of a micro-batch. All that it gives are views."""

    block: Block
    sequence: int
    heads: slice

    def queries(self, x_BHTK: Tensor) -> Tensor:
        """[G, t, K] of queries, or of what has their shape."""
        return x_BHTK[self.sequence, self.heads, self.block.first : self.block.stop]

    def keys(self, kv_2BHSK: Tensor, which: int) -> Tensor:
        """[G, s, K] of keys (0) or values (1)."""
        return kv_2BHSK[which, self.sequence, self.heads, : self.block.keys]

    def masked(self, masked_keys: Tensor) -> Tensor:
        """[1, t, s] of a mask [1 or B, 1, T, S]."""
        sequence = self.sequence if masked_keys.shape[0] > 1 else 0
        return masked_keys[sequence, :, self.block.first : self.block.stop, : self.block.keys]

    def kept(self, keep_BHTS: Tensor) -> Tensor:
        """[G, t, s] of a dropout mask."""
        return keep_BHTS[self.sequence, self.heads, self.block.first : self.block.stop, : self.block.keys]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradients:
    """Of what `TiledScores` was given."""

    q_BHTK: Tensor
    kv_2BHSK: Tensor
    r_HRK: Tensor
    u_HK: Tensor
    v_HK: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TiledScores:
    """((q + u)·k + shifted (q + v)·r) / sqrt(K), masked, softmax, dropout, values: a tile at a time."""

    q_BHTK: Tensor
    kv_2BHSK: Tensor
    r_HRK: Tensor
    """Projected distances."""
    u_HK: Tensor
    v_HK: Tensor
    keep_BHTS: Tensor | None
    """1 for probabilities that dropout keeps, else 0; None: it keeps all."""
    kept_scale: float

    def mix(self, masked_keys: Tensor, *, keep_probabilities: bool) -> tuple[Tensor, list[Tensor]]:
        """Weighted values [B, H, T, K], and the probabilities [B, H, t, s] of each block where they are to be kept."""
        content, position = self._biased(self.u_HK), self._biased(self.v_HK)
        mixed_BHTK = self._of_queries()
        kept: list[Tensor] = []
        for block, tile in self._blocks(buffers=2):
            whole_BHts, r_HRK = self._probabilities(block) if keep_probabilities else None, self._distances(block)
            for at in self._places(block):
                out = None if whole_BHts is None else whole_BHts[at.sequence, at.heads]
                p_Gts = self._softmax(tile, at, content, position, r_HRK, masked_keys, out)
                at.queries(mixed_BHTK).copy_(torch.bmm(self._dropped(p_Gts, at), at.keys(self.kv_2BHSK, 1)))
            kept += [] if whole_BHts is None else [whole_BHts]
        return mixed_BHTK, kept

    def gradients(self, mixed_BHTK: Tensor, known: Sequence[Tensor] | Tensor) -> Gradients:
        """Given the gradient of the weighted values, and the probabilities that `mix` kept or the mask to compute them again.

        Sums over tiles are taken in fp32 at least.
        """
        content, position = self._biased(self.u_HK), self._biased(self.v_HK)
        wide = torch.promote_types(self.q_BHTK.dtype, torch.float32)
        gradient_HRK, u_HK, v_HK = (torch.zeros_like(each, dtype=wide) for each in (self.r_HRK, self.u_HK, self.v_HK))
        q_BHTK, kv_2BHSK = self._of_queries(), torch.empty_like(self.kv_2BHSK)
        for number, (block, tile) in enumerate(self._blocks(buffers=3 if isinstance(known, Tensor) else 2)):
            r_HRK, r_gradient_HRK = self._distances(block), _nearest(gradient_HRK, block)
            for at in self._places(block):
                out_GtK = at.queries(mixed_BHTK)
                if isinstance(known, Tensor):
                    p_Gts = self._softmax(tile, at, content, position, r_HRK, known)
                else:
                    p_Gts = known[number][at.sequence, at.heads]
                self._add(kv_2BHSK, at, 1, torch.bmm(self._dropped(p_Gts, at).transpose(1, 2), out_GtK))
                keep = None if self.keep_BHTS is None else at.kept(self.keep_BHTS)
                scores_Gts = tile.score_gradient(out_GtK, at.keys(self.kv_2BHSK, 1), p_Gts, keep, self.kept_scale)
                self._add(kv_2BHSK, at, 0, torch.bmm(scores_Gts.transpose(1, 2), at.queries(content)))
                content_GtK = torch.bmm(scores_Gts, at.keys(self.kv_2BHSK, 0))
                position_GtR = tile.unshifted(scores_Gts)
                r_gradient_HRK[at.heads].add_(torch.bmm(position_GtR.transpose(1, 2), at.queries(position)))
                position_GtK = torch.bmm(position_GtR, r_HRK[at.heads])
                torch.add(content_GtK, position_GtK, out=at.queries(q_BHTK))
                u_HK[at.heads].add_(content_GtK.sum(1, dtype=wide))
                v_HK[at.heads].add_(position_GtK.sum(1, dtype=wide))
        scale = self.q_BHTK.shape[-1] ** -0.5
        scaled = (each.mul_(scale) for each in (q_BHTK, u_HK, v_HK))
        return Gradients(kv_2BHSK=kv_2BHSK, r_HRK=gradient_HRK, **dict(zip(("q_BHTK", "u_HK", "v_HK"), scaled, strict=True)))

    def _softmax(
        self,
        tile: Tile,
        at: Place,
        content: Tensor,
        position: Tensor,
        r_HRK: Tensor,
        masked_keys: Tensor,
        out: Tensor | None = None,
    ) -> Tensor:
        """Probabilities of a tile, [G, t, s]; `content` and `position`: queries with their bias; distances of its block."""
        k_GsK, masked_ts = at.keys(self.kv_2BHSK, 0), at.masked(masked_keys)
        return tile.probabilities(at.queries(content), at.queries(position), k_GsK, r_HRK[at.heads], masked_ts, out)

    def _distances(self, block: Block) -> Tensor:
        """A block's [H, R, K]; in 2 bytes dense, as products would copy them for every tile again."""
        r_HRK = _nearest(self.r_HRK, block)
        return r_HRK.contiguous() if r_HRK.element_size() == 2 else r_HRK

    def _of_queries(self) -> Tensor:
        """Of the queries' shape [B, H, T, K], in memory with all heads of a position together."""
        return torch.empty_like(self.q_BHTK.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)

    def _biased(self, bias_HK: Tensor) -> Tensor:
        """Queries with a bias, scaled, in the precision of products."""
        return (self.q_BHTK + bias_HK.unsqueeze(1)).mul_(self.q_BHTK.shape[-1] ** -0.5).to(self.q_BHTK.dtype)

    def _blocks(self, *, buffers: int) -> Iterator[tuple[Block, Tile]]:
        _, heads, queries, _ = self.q_BHTK.shape
        memory, narrow = self.kv_2BHSK.shape[3] - queries, self.q_BHTK.element_size() == 2
        cut = blocks(queries, memory, heads, narrow=narrow)
        largest = max(block.heads * block.queries * distance_rows(block.keys) for block in cut)
        buffers_NX = self.q_BHTK.new_empty(buffers, largest)
        for block in cut:
            yield block, Tile(block, buffers_NX)

    def _places(self, block: Block) -> Iterator[Place]:
        B, H, _, _ = self.q_BHTK.shape
        for sequence in range(B):
            for first in range(0, H, block.heads):
                yield Place(block=block, sequence=sequence, heads=slice(first, first + block.heads))

    def _probabilities(self, block: Block) -> Tensor:
        B, H, _, _ = self.q_BHTK.shape
        return self.q_BHTK.new_empty(B, H, block.queries, block.keys)

    def _dropped(self, p_Gts: Tensor, at: Place) -> Tensor:
        return p_Gts if self.keep_BHTS is None else (p_Gts * at.kept(self.keep_BHTS)).mul_(self.kept_scale)

    def _add(self, kv_2BHSK: Tensor, at: Place, which: int, gradient_GsK: Tensor) -> None:
        """The first block of a sequence sees every key and so fills what is not yet written; the others add to it."""
        mine = at.keys(kv_2BHSK, which)
        if at.block.stop == self.q_BHTK.shape[2]:
            mine.copy_(gradient_GsK)
        else:
            mine.add_(gradient_GsK)


def _nearest(r_HRK: Tensor, block: Block) -> Tensor:
    """Of all distances [H, R, K] those of a block: the nearest s, and dummies."""
    first = r_HRK.shape[1] - VECTOR - block.keys
    return r_HRK[:, first : first + distance_rows(block.keys)]
