"""A token of each of a few rows, read by compiled code of our own, `token.cpp`: where torch's compiler leaves a CPU waiting for
memory.

Shape suffixes: L layers, B rows, D d_model, N outputs of K inputs, V vocabulary, H heads, S slots + 1, K width of a head.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from txlplan.model import ModelConfig
from txlplan.model._tiles import SUMMED_ROWS
from txlplan.nn._head import Outputs
from txlplan.nn._layer_weights import LayerWeights
from txlplan.nn._own_code import library
from txlplan.nn._ring import KeyValueRing

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
LARGE_PAGES_S = 1.0
"""At most, for a gain that no benchmark shows apart: a choice. 240 MB were seen to take 0.6 s."""
_LARGE_BYTES = 1 << 17
"""What is smaller shares its page with others."""


def has_token_code(rows: int, dtype: torch.dtype, like: Tensor) -> bool:
    """Whether the code takes so many rows, weights of `dtype`, and norms like these."""
    return like.device.type == "cpu" and like.dtype == torch.float32 and rows <= SUMMED_ROWS and dtype in _DTYPES


class TokenCode:
    """Reads single tokens of `rows` rows from a ring of a full memory's width, and gives probabilities of the next.

    `positions`: of each layer, W_r R of the distances of all slots that are read, [H, S, K]. Raises what torch raises where
    nothing can be compiled. The tensors that it was given are read in place, and must not change their storage.
    """

    def __init__(
        self,
        config: ModelConfig,
        layers: Sequence[LayerWeights],
        positions: Sequence[Tensor],
        outputs: Sequence[Outputs],
        *,
        rows: int,
    ) -> None:
        self._dtype = positions[0].dtype
        self._read, self._next = (getattr(library("token"), f"{name}_{_DTYPES[self._dtype]}") for name in ("read", "next"))
        self._held: list[Tensor] = []
        self._rows, self._width, self._words = rows, config.d_model, config.vocab_size
        self._layers = (_Layer * len(layers))(*map(self._layer, layers, positions))
        self._clusters = (_Cluster * len(outputs))(*map(self._cluster, outputs))
        heads, slots, _ = positions[0].shape
        self._sizes = _Sizes(
            layers=len(layers),
            rows=rows,
            width=config.d_model,
            heads=heads,
            head=config.d_head,
            inner=config.d_inner,
            slots=slots - 1,
            pre_norm=config.norm == "pre",
            gelu=config.activation == "gelu",
        )
        keep_in_large_pages(self._held)

    def read(self, x_BD: Tensor, ring: KeyValueRing) -> Tensor:
        """The last layer's output [B, D] for a token of each row, whose keys and values are written into the ring."""
        assert x_BD.shape == (self._rows, self._width)
        assert (ring.rows, ring.dtype) == (self._rows, self._dtype)
        sizes, out_BD = self._sizes, x_BD.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        keys_LBHSK, values_LBHSK = ring.window(sizes.slots, 1)
        sizes.layer_stride, sizes.row_stride, sizes.head_stride, *within = keys_LBHSK.stride()
        assert within == [sizes.head, 1]
        sizes.threads = torch.get_num_threads()
        unfilled = (ctypes.c_int64 * self._rows)(*(max(0, sizes.slots - filled) for filled in ring.filled))
        pointers = (each.data_ptr() for each in (out_BD, keys_LBHSK, values_LBHSK))
        self._read(ctypes.byref(sizes), self._layers, *map(ctypes.c_void_p, pointers), unfilled)
        return out_BD

    def log_probabilities(self, hidden_BD: Tensor, *, likeliest: int | None = None) -> Tensor:
        """Log-probabilities [B, V] of the next word in nats, in fp32. `likeliest`: as of `Inference.log_probabilities`."""
        assert hidden_BD.shape == (self._rows, self._width)
        hidden_BD = hidden_BD.float().contiguous()
        out_BV = torch.empty(self._rows, self._words, dtype=torch.float32, device="cpu")
        hidden, out = (ctypes.c_void_p(each.data_ptr()) for each in (hidden_BD, out_BV))
        sizes = (ctypes.c_int64(each) for each in (len(self._clusters), self._rows))
        width, threads = ctypes.c_int64(self._width), ctypes.c_int64(torch.get_num_threads())
        wanted = ctypes.c_int64(self._words if likeliest is None else min(likeliest, self._words))
        self._next(self._clusters, *sizes, hidden, width, wanted, out, threads)
        return out_BV

    def _layer(self, layer: LayerWeights, positions_HSK: Tensor) -> _Layer:
        norm, second = layer.token.attention_norm, layer.token.feed_forward_norm
        pairs = {**layer.weights, "norm": (norm.weight, norm.bias), "second_norm": (second.weight, second.bias)}
        tensors = {"content_bias": layer.u_HK, "position_bias": layer.v_HK, "distances": positions_HSK}
        for name, (weight, bias) in pairs.items():
            tensors |= {name: weight, f"{name}_bias": bias}
        pointers = {name: self._pointer(each) for name, each in tensors.items()}
        return _Layer(**pointers, epsilon=norm.eps, second_epsilon=second.eps)

    def _cluster(self, outputs: Outputs) -> _Cluster:
        weight_CE, bias_C, projection_DE = outputs
        projection_ED = None if projection_DE is None else projection_DE.detach().T
        pointers = map(self._pointer, (weight_CE, bias_C, projection_ED))
        return _Cluster(*pointers, *weight_CE.shape)

    def _pointer(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._held.append(tensor.detach().contiguous())
        return self._held[-1].data_ptr()


class _Sizes(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("layers", "rows", "width", "heads", "head", "inner", "slots"),
            *("layer_stride", "row_stride", "head_stride", "pre_norm", "gelu", "threads"),
        )
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("qkv", "output", "inner", "outer", "qkv_bias", "output_bias", "inner_bias", "outer_bias"),
                *("content_bias", "position_bias", "distances"),
                *("norm", "norm_bias", "second_norm", "second_norm_bias"),
            )
        ),
        ("epsilon", ctypes.c_float),
        ("second_epsilon", ctypes.c_float),
    ]


class _Cluster(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "projection")),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
    ]


def keep_in_large_pages(tensors: Sequence[Tensor]) -> None:
    """Those that are large, as far as the system does so within LARGE_PAGES_S: the code reads them faster then."""
    stop_s = time.monotonic() + LARGE_PAGES_S
    for each in tensors:
        if each.nbytes >= _LARGE_BYTES:
            left_s = ctypes.c_double(stop_s - time.monotonic())
            library("token").in_large_pages(ctypes.c_void_p(each.data_ptr()), ctypes.c_int64(each.nbytes), left_s)


def summed_product(weight_NK: Tensor, x_BK: Tensor) -> Callable[[], Tensor]:
    """x W^T [B, N], anew at each call, by the code that reads tokens: what that is measured by.

    `x_BK` of fp32 and few rows, `weight_NK` of that or bf16, contiguous. Raises what torch raises where it cannot compile.
    """
    assert len(x_BK) <= SUMMED_ROWS
    assert x_BK.dtype == torch.float32
    assert x_BK.is_contiguous()
    assert weight_NK.is_contiguous()
    run = getattr(library("token"), f"product_{_DTYPES[weight_NK.dtype]}")
    out_BN = torch.empty(len(x_BK), len(weight_NK), dtype=torch.float32, device="cpu")
    weight, x, out = (ctypes.c_void_p(each.data_ptr()) for each in (weight_NK, x_BK, out_BN))
    sizes = [ctypes.c_int64(each) for each in (*reversed(weight_NK.shape), len(x_BK))]
    threads = ctypes.c_int64(torch.get_num_threads())

    def again(_held: tuple[Tensor, Tensor] = (weight_NK, x_BK)) -> Tensor:
        run(weight, *sizes, x, out, threads)
        return out_BN

    return again
