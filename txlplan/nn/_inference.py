"""The model as a reader of text: each token is projected once, its keys and values are kept, nothing is differentiated.

Shape suffixes: B rows, T tokens read at once, D d_model, H heads, K width of a head, S keys, N positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from txlplan.model._tiles import KEPT_SLOTS
from txlplan.nn._attention_code import CompiledScores, has_attention_code
from txlplan.nn._compiled_token import ReadToken, attention_to_compile, compiled_read_token
from txlplan.nn._fused_attention import fused_scores
from txlplan.nn._head import Head
from txlplan.nn._kept_attention import attend_segment, attend_token, attend_token_in_place, future
from txlplan.nn._layer_weights import Attend, LayerWeights
from txlplan.nn._positions import key_mask, sinusoids
from txlplan.nn._ring import KeyValueRing
from txlplan.nn._token_code import TokenCode, has_token_code, keep_in_large_pages
from txlplan.nn._transformer_xl import TransformerXL

Module = TypeVar("Module", bound=nn.Module)
AttendSegment = Callable[[LayerWeights, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Weighted values [B, T, W], from new queries, keys and values [B, T, 3, H, K], all keys and values [B, H, S, K] and distances
[H, S, K]."""


class Inference:
    """A trained model's weights, cast to `dtype` once (None: as they are), for segments and for one token a row at a time.

    Norms, biases of queries and the residual stream stay in the model's own dtype, as under autocast. Later changes of the
    model's weights may or may not be seen: make a new one. `rows`: of how many rows single tokens will be read, for which
    weights are laid out where no code of our own reads them; None: segments will be. `compiled`: single tokens of that many
    rows are read by compiled code, from rings of `longest` 1, and of few rows on a CPU so are the probabilities of the next;
    raises what torch raises where it cannot compile.
    """

    def __init__(
        self, model: TransformerXL, *, rows: int | None = None, dtype: torch.dtype | None = None, compiled: bool = False
    ) -> None:
        self.config = model.config
        self._embedding = model.embedding
        self._like = model.layers[0].attention.norm.weight
        self._together = self._like.is_cuda or model.layers[0].attention.path == "fused"
        self._dtype = dtype or self._like.dtype
        self._scored_by_code = model.layers[0].attention.path == "compiled" and has_attention_code(
            self._like.device, self._dtype
        )
        self._rows = rows or 1
        own_code = compiled and has_token_code(self._rows, self._dtype, self._like)
        laid_out = None if own_code else rows
        self._layers = [LayerWeights(layer, model, self._dtype, laid_out, compiled=compiled) for layer in model.layers]
        narrowed = self._dtype != self._like.dtype
        self._softmax, self._words = (
            _copied(module, self._dtype) if narrowed else module for module in (model.softmax, model.embedding)
        )
        self._positions: list[Tensor] = []
        outputs = [self._softmax.outputs(cluster, self._words) for cluster in range(model.config.n_clusters)]
        self._head = Head(model.config, outputs, rows=laid_out)
        self._code = TokenCode(self.config, self._layers, self._all_distances(), outputs, rows=self._rows) if own_code else None
        self._compiled = self._compile() if compiled and not own_code else None

    def ring(self, rows: int, *, longest: int) -> KeyValueRing:
        """An empty memory of `rows` rows that read up to `longest` tokens at a time."""
        ring = KeyValueRing(self.config, rows, longest=longest, dtype=self._dtype, device=self._like.device)
        if self._code and self._is_compiled_for(ring):
            keep_in_large_pages(ring.buffers)
        return ring

    def _is_compiled_for(self, ring: KeyValueRing) -> bool:
        return (ring.rows, ring.longest, ring.dtype) == (self._rows, 1, self._dtype)

    @torch.no_grad()
    def read(self, tokens_BT: Tensor, ring: KeyValueRing) -> Tensor:
        """Hidden states [B, T, D] of new tokens (int64), which become memory."""
        tokens = tokens_BT.shape[1]
        ring.make_room(tokens)
        if tokens == 1:
            x_BTD = self._token(self._embedding(tokens_BT)[:, 0], ring).unsqueeze(1)
        else:
            x_BTD = self._segment(self._embedding(tokens_BT), ring)
        ring.advance(tokens)
        return x_BTD

    @torch.no_grad()
    def nll(self, hidden_BTD: Tensor, targets_BT: Tensor, members: Sequence[Tensor] | None = None) -> Tensor:
        """Negative log-likelihood [B, T] of the targets in nats, in fp32 at least. `members`: as of `TransformerXL.nll`."""
        hidden_ND = hidden_BTD.flatten(0, 1).to(self._dtype)
        return self._softmax.nll(hidden_ND, targets_BT.flatten(), self._words, members).view(targets_BT.shape)

    def members(self, targets_BT: Tensor) -> list[Tensor]:
        """Which targets are words of each further cluster, see `AdaptiveSoftmax.members`."""
        return self._softmax.members(targets_BT.flatten())

    @torch.no_grad()
    def log_probabilities(self, hidden_BD: Tensor, *, likeliest: int | None = None) -> Tensor:
        """Log-probabilities [B, V] of the next word in nats, in fp32 at least.

        `likeliest`: how many of each row's likeliest words are wanted; None: all. On a CPU a further cluster of which no row
        wants a word is not read then, and its words get minus infinity.
        """
        code = self._code if len(hidden_BD) == self._rows else None
        return (code or self._head).log_probabilities(hidden_BD, likeliest=likeliest)

    def _segment(self, x_BTD: Tensor, ring: KeyValueRing) -> Tensor:
        tokens = x_BTD.shape[1]
        slots = max(ring.filled)
        positions = self.distances(slots + tokens)
        attend = self._attend_segment(tokens, ring.filled)
        for layer, window, r_HSK in zip(self._layers, ring.windows(slots, tokens), positions, strict=True):
            mixed_BTW = self._attended(layer, x_BTD, window, r_HSK, attend)
            x_BTD = layer.segment.after_attention(x_BTD, mixed_BTW)
        return x_BTD

    def _attended(
        self, layer: LayerWeights, x_BTD: Tensor, window: tuple[Tensor, Tensor], r_HSK: Tensor, attend: AttendSegment
    ) -> Tensor:
        """Weighted values [B, T, W] of new tokens, whose keys and values are written at the window's end."""
        keys_BHSK, values_BHSK = window
        qkv_BT3HK = layer.segment.queries_keys_values(x_BTD)
        _, k_BTHK, v_BTHK = qkv_BT3HK.unbind(2)
        slots = keys_BHSK.shape[2] - x_BTD.shape[1]
        keys_BHSK[:, :, slots:] = k_BTHK.transpose(1, 2)
        values_BHSK[:, :, slots:] = v_BTHK.transpose(1, 2)
        return attend(layer, qkv_BT3HK, keys_BHSK, values_BHSK, r_HSK)

    def _attend_segment(self, tokens: int, slots_filled: Sequence[int]) -> AttendSegment:
        if not self._together and not self._scored_by_code:
            return self._row_by_row(tokens, slots_filled)
        filled = slots_filled[:1] if len(set(slots_filled)) == 1 else slots_filled
        window = self.config.mem_len if self.config.same_length else None
        masked_keys = key_mask(tokens, max(filled), torch.tensor(filled, device=self._like.device), window)
        return partial(self._all_rows if self._together else self._by_code, masked_keys)

    def _all_rows(
        self, masked_keys: Tensor, layer: LayerWeights, qkv_BT3HK: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor
    ) -> Tensor:
        """Of all rows together, by the fused kernels of training on CUDA: a device of many cores waits for one row's."""
        keys_BSHK, values_BSHK, r_SHK = keys_BHSK.transpose(1, 2), values_BHSK.transpose(1, 2), r_HSK.transpose(0, 1)
        biases = (layer.u_HK, layer.v_HK)
        return fused_scores(qkv_BT3HK[:, :, 0], keys_BSHK, values_BSHK, r_SHK, biases, masked_keys, 0.0).flatten(2)

    def _by_code(
        self, masked_keys: Tensor, layer: LayerWeights, qkv_BT3HK: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor
    ) -> Tensor:
        """By code of our own for training on a CPU."""
        slots = keys_BHSK.shape[2] - qkv_BT3HK.shape[1]
        scores = CompiledScores(
            qkv_BT3HK=qkv_BT3HK,
            k_BMHK=keys_BHSK[:, :, :slots].transpose(1, 2),
            v_BMHK=values_BHSK[:, :, :slots].transpose(1, 2),
            r_SHK=r_HSK.transpose(0, 1),
            u_HK=layer.u_HK,
            v_HK=layer.v_HK,
        )
        mixed_BTHK, _ = scores.mix(masked_keys, keep_probabilities=False)
        return mixed_BTHK.flatten(2)

    def _row_by_row(self, tokens: int, slots_filled: Sequence[int]) -> AttendSegment:
        """The scores of one row stay in a CPU's cache."""
        masks = {filled: self._masked(tokens, filled + tokens) for filled in set(slots_filled)}

        def attend(layer: LayerWeights, qkv_BT3HK: Tensor, keys_BHSK: Tensor, values_BHSK: Tensor, r_HSK: Tensor) -> Tensor:
            mixed_BTW = torch.empty(*qkv_BT3HK.shape[:2], layer.u_HK.numel(), dtype=self._dtype, device=qkv_BT3HK.device)
            for row, filled in enumerate(slots_filled):
                start = max(slots_filled) - filled
                mixed_BTW[row] = attend_segment(
                    qkv_BT3HK[row, :, 0],
                    layer.u_HK,
                    layer.v_HK,
                    keys_BHSK[row, :, start:],
                    values_BHSK[row, :, start:],
                    r_HSK[:, start:],
                    masks[filled],
                )
            return mixed_BTW

        return attend

    def _token(self, x_BD: Tensor, ring: KeyValueRing) -> Tensor:
        if self._code and self._is_compiled_for(ring):
            return self._code.read(x_BD, ring)
        compiled = self._compiled if self._is_compiled_for(ring) else None
        slots = self._visible_slots if compiled else self._slots_read(max(ring.filled))
        mask_BS = _unfilled(ring.filled, slots, self._like)
        read_token: ReadToken = LayerWeights.read_token
        attend: Attend = attend_token_in_place if self._narrow_on_cpu else attend_token
        windows = ring.windows(slots, 1)
        if compiled:
            (read_token, positions), attend = compiled, attention_to_compile(ring)
            mask_BS = x_BD.new_zeros(ring.rows, slots + 1) if mask_BS is None else mask_BS
        else:
            positions = self.distances(slots + 1)
        for layer, (keys_BHSK, values_BHSK), r_HSK in zip(self._layers, windows, positions, strict=True):
            x_BD = read_token(layer, x_BD, keys_BHSK, values_BHSK, r_HSK, mask_BS, attend)
        return x_BD

    @property
    def _narrow_on_cpu(self) -> bool:
        """Whether numbers are of 2 bytes on a CPU that reads as itself, and not as CUDA does."""
        return self._dtype.itemsize == 2 and not self._together

    def _slots_read(self, filled: int) -> int:
        """Memory slots that one token's products take: what is filled, on a CPU and in 2 bytes made up to a multiple."""
        if self._narrow_on_cpu:
            filled = -(-filled // KEPT_SLOTS) * KEPT_SLOTS
        return min(filled, self._visible_slots)

    @property
    def _visible_slots(self) -> int:
        """Memory slots that one token sees of a full memory."""
        return self.config.mem_len - 1 if self.config.same_length else self.config.mem_len

    def _compile(self) -> tuple[ReadToken, list[Tensor]]:
        """A layer's compiled work, and the whole tensors of distances that it takes: a longer segment has others made."""
        config, like, positions = self.config, self._like, self._all_distances()
        one_layer = replace(config, n_layer=1)
        ring = KeyValueRing(one_layer, self._rows, longest=1, dtype=self._dtype, device=like.device)
        example_BD = torch.zeros(self._rows, config.d_model, dtype=like.dtype, device=like.device)
        return compiled_read_token(self._layers[0], example_BD, ring, positions[0]), positions

    def _all_distances(self) -> list[Tensor]:
        """Of every slot that a token sees, as `distances`."""
        return self.distances(self._visible_slots + 1)

    def _masked(self, tokens: int, keys: int) -> Tensor:
        """[T, S], True where a query may not see a key; where that is but the future, [T, T] to be added."""
        if not self.config.same_length:
            return future(tokens, self._dtype, self._like.device)
        key_S = torch.arange(keys, device=self._like.device)
        distance_TS = torch.arange(keys - tokens, keys, device=self._like.device).unsqueeze(1) - key_S
        return (distance_TS < 0) | (distance_TS >= self.config.mem_len)

    def distances(self, keys: int) -> list[Tensor]:
        """W_r R of the distances keys - 1, …, 0, a layer each: [H, keys, K]. Projected once."""
        if not self._positions or self._positions[0].shape[1] < keys:
            config = self.config
            sinusoids_SD = sinusoids(keys, config.d_model, config.clamp_len, self._like)
            self._positions = [layer.positions(sinusoids_SD) for layer in self._layers]
        return [positions_HSK[:, -keys:] for positions_HSK in self._positions]


def _copied(module: Module, dtype: torch.dtype) -> Module:
    """The same with parameters in `dtype`, which never exist in another one."""
    cast = {id(each): nn.Parameter(each.detach().to(dtype), requires_grad=False) for each in module.parameters()}
    return copy.deepcopy(module, cast)


def _unfilled(filled: Sequence[int], slots: int, like: Tensor) -> Tensor | None:
    """[B, slots + 1], minus infinity for memory slots that a row has not filled; None where every row has filled all."""
    if min(filled) >= slots:
        return None
    filled_B1 = torch.tensor(filled, device=like.device).unsqueeze(1)
    unfilled_BS = torch.arange(slots + 1, device=like.device) < slots - filled_B1
    return torch.zeros(unfilled_BS.shape, dtype=like.dtype, device=like.device).masked_fill_(unfilled_BS, float("-inf"))
