"""Attention by compiled code of our own, `attention.cpp` and `attention_bf16.cpp`: of what torch's products leave, no score is
written but what is kept.

As operations of torch's, so that they are traced, and differentiated by whoever calls them. Shape suffixes: B sequences, T
queries, M memory slots, S = M + T keys, H heads, K width of a head.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from txlplan.model._tiles import kept_scores, scored_blocks
from txlplan.nn._instructions import may_use_bf16
from txlplan.nn._operations import define
from txlplan.nn._own_code import Name, library

_LINE_BYTES = 64
"""What is kept begins where a line of a cache does, as torch lets all tensors on a CPU begin."""
_CODE: dict[torch.dtype, Name] = {torch.float32: "attention", torch.bfloat16: "attention_bf16"}


def has_attention_code(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is code for such operands: of bf16 for a CPU that multiplies it, and may."""
    if device.type != "cpu" or dtype not in _CODE:
        return False
    return dtype == torch.float32 or may_use_bf16()


@dataclass(frozen=True, slots=True)
class Gradients:
    """Of what `CompiledScores` was given, keys and values of the memory in one tensor."""

    qkv_BT3HK: Tensor
    kv_BM2HK: Tensor
    r_SHK: Tensor
    u_HK: Tensor
    v_HK: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledScores:
    """((q + u)·k + shifted (q + v)·r) / sqrt(K), masked, softmax, dropout, values: a block of queries of a head at a time.

    In fp32 or bf16, with biases in fp32. Keys that a query sees lie together: no masked one is between two of them.
    """

    qkv_BT3HK: Tensor
    """Of the segment; contiguous."""
    k_BMHK: Tensor
    v_BMHK: Tensor
    """Of the memory; like distances of any strides but the last."""
    r_SHK: Tensor
    """Projected distances S - 1, …, 0."""
    u_HK: Tensor
    v_HK: Tensor
    keep_BHTS: Tensor | None = None
    """1 for probabilities that dropout keeps, else 0; None: it keeps all."""
    kept_scale: float = 1.0

    def mix(self, masked_keys: Tensor, *, keep_probabilities: bool) -> tuple[Tensor, Tensor]:
        """Weighted values [B, T, H, K], and what `gradients` wants of probabilities, or nothing.

        `masked_keys` [1 or B, 1, T, S].
        """
        mixed_BTHK, kept = _OPS.attend.default(*self._operands(masked_keys), keep_probabilities)
        return mixed_BTHK, kept

    def gradients(self, of_mixed_BTHK: Tensor, known: Tensor) -> Gradients:
        """Given the gradient of the weighted values, and what `mix` kept, or the mask to compute it again."""
        again = known.dtype == torch.bool
        masked_keys, kept = (known, self.qkv_BT3HK.new_empty(0)) if again else (known.new_empty(0, dtype=torch.bool), known)
        return Gradients(*_OPS.attend_backward.default(of_mixed_BTHK.contiguous(), kept, *self._operands(masked_keys), again))

    def _operands(self, masked_keys: Tensor) -> _Given:
        return (
            self.qkv_BT3HK,
            self.k_BMHK,
            self.v_BMHK,
            self.r_SHK,
            self.u_HK.float().contiguous(),
            self.v_HK.float().contiguous(),
            masked_keys.contiguous(),
            self.keep_BHTS,
            self.kept_scale,
        )


_Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, float]


def _attend(
    qkv_BT3HK: Tensor,
    k_BMHK: Tensor,
    v_BMHK: Tensor,
    r_SHK: Tensor,
    u_HK: Tensor,
    v_HK: Tensor,
    masked_keys: Tensor,
    keep_BHTS: Tensor | None,
    kept_scale: float,
    keeps: bool,
) -> tuple[Tensor, Tensor]:
    mixed_BTHK, kept = _made(qkv_BT3HK, k_BMHK, keeps)
    operands = _Operands.of(qkv_BT3HK, k_BMHK, v_BMHK, r_SHK, u_HK, v_HK, masked_keys, keep_BHTS)
    sizes = _sizes(qkv_BT3HK, k_BMHK, masked_keys, kept_scale)
    code = library(_CODE[qkv_BT3HK.dtype])
    assert kept.numel() == (_kept_elements(code, sizes) if keeps else 0)
    assert kept.data_ptr() % _LINE_BYTES == 0
    out, probabilities = (ctypes.c_void_p(_pointer(each)) for each in (mixed_BTHK, kept if keeps else None))
    code.attend(ctypes.byref(sizes), ctypes.byref(operands), out, probabilities)
    return mixed_BTHK, kept


def _attend_backward(
    of_mixed_BTHK: Tensor,
    kept: Tensor,
    qkv_BT3HK: Tensor,
    k_BMHK: Tensor,
    v_BMHK: Tensor,
    r_SHK: Tensor,
    u_HK: Tensor,
    v_HK: Tensor,
    masked_keys: Tensor,
    keep_BHTS: Tensor | None,
    kept_scale: float,
    again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`kept` is what `_attend` kept, or, `again`, nothing."""
    found = _like(qkv_BT3HK, k_BMHK, r_SHK, u_HK, v_HK)
    operands = _Operands.of(qkv_BT3HK, k_BMHK, v_BMHK, r_SHK, u_HK, v_HK, masked_keys, keep_BHTS)
    sizes, gradients = _sizes(qkv_BT3HK, k_BMHK, masked_keys, kept_scale), _Gradients(*map(_pointer, found))
    probabilities, out = (ctypes.c_void_p(_pointer(each)) for each in (None if again else kept, of_mixed_BTHK))
    library(_CODE[qkv_BT3HK.dtype]).attend_backward(
        ctypes.byref(sizes), ctypes.byref(operands), probabilities, out, ctypes.byref(gradients)
    )
    return found


def _product_flops(qkv_shape: Sequence[int], k_shape: Sequence[int]) -> int:
    """Of each query's product with each key of its block."""
    B, T, _, H, K = qkv_shape
    return 2 * B * H * K * sum(queries * keys for queries, keys in scored_blocks(T, k_shape[1]))


def _made(qkv_BT3HK: Tensor, k_BMHK: Tensor, keeps: bool) -> tuple[Tensor, Tensor]:
    """What `_attend` fills."""
    B, T, _, H, K = qkv_BT3HK.shape
    scores = kept_scores(T, k_BMHK.shape[1], narrow=qkv_BT3HK.dtype == torch.bfloat16)
    return qkv_BT3HK.new_empty(B, T, H, K), qkv_BT3HK.new_empty(B * H * scores if keeps else 0)


def _like(
    qkv_BT3HK: Tensor, k_BMHK: Tensor, r_SHK: Tensor, u_HK: Tensor, v_HK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `_attend_backward` fills."""
    B, M, H, K = k_BMHK.shape
    kv_BM2HK, r = k_BMHK.new_empty(B, M, 2, H, K), r_SHK.new_empty(r_SHK.shape)
    return torch.empty_like(qkv_BT3HK), kv_BM2HK, r, torch.empty_like(u_HK), torch.empty_like(v_HK)


_OPERANDS = ", ".join(
    (
        *(f"Tensor {name}" for name in ("qkv", "memory_keys", "memory_values", "distances")),
        *("Tensor content_bias", "Tensor position_bias", "Tensor masked_keys", "Tensor? keep", "float kept_scale"),
    )
)
_LIBRARY = define(
    (
        f"attend({_OPERANDS}, bool keeps) -> (Tensor, Tensor)",
        _attend,
        lambda qkv, k, *rest: _made(qkv, k, rest[-1]),
    ),
    (
        f"attend_backward(Tensor of_mixed, Tensor kept, {_OPERANDS}, bool again) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _attend_backward,
        lambda _of_mixed, _kept, qkv, k, _v, *rest: _like(qkv, k, *rest[:3]),
    ),
)
_OPS = torch.ops.txlplan
register_flop_formula(torch.ops.txlplan.attend)(lambda qkv, k, *_, **__: 3 * _product_flops(qkv, k))
register_flop_formula(torch.ops.txlplan.attend_backward)(
    lambda _, kept, qkv, k, *__, **___: (6 if kept[0] else 8) * _product_flops(qkv, k)
)


def _sizes(qkv_BT3HK: Tensor, k_BMHK: Tensor, masked_keys: Tensor, kept_scale: float) -> _Sizes:
    B, T, _, H, K = qkv_BT3HK.shape
    return _Sizes(B, H, T, k_BMHK.shape[1] + T, K, masked_keys.shape[0], torch.get_num_threads(), kept_scale)


def _kept_elements(code: Any, sizes: _Sizes) -> int:
    """As the code has them: it is told where, and not how much."""
    count = code.kept_elements
    count.restype = ctypes.c_int64
    return int(count(ctypes.byref(sizes)))


def _pointer(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    assert tensor.dtype in (*_CODE, torch.bool, torch.int8)
    return tensor.data_ptr()


class _Sizes(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("sequences", "heads", "queries", "keys", "head", "masks", "threads")),
        ("kept_scale", ctypes.c_float),
    ]


class _Strided(ctypes.Structure):
    _fields_ = [
        ("first", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("sequence", "position", "head")),
    ]

    @classmethod
    def of(cls, tensor_BSHK: Tensor) -> _Strided:
        """Where it lies."""
        *apart, element = tensor_BSHK.stride()
        assert tensor_BSHK.dtype in _CODE
        assert element == 1 or tensor_BSHK.shape[-1] == 1
        return cls(tensor_BSHK.data_ptr(), *apart)


class _Operands(ctypes.Structure):
    _fields_ = [
        ("segment", ctypes.c_void_p),
        *((name, _Strided) for name in ("memory_keys", "memory_values", "distances")),
        *((name, ctypes.c_void_p) for name in ("content_bias", "position_bias", "masked", "keep")),
    ]

    @classmethod
    def of(cls, segment: Tensor, k_BMHK: Tensor, v_BMHK: Tensor, r_SHK: Tensor, *rest: Tensor | None) -> _Operands:
        """Where they lie."""
        assert segment.dtype == k_BMHK.dtype == v_BMHK.dtype == r_SHK.dtype
        strided = map(_Strided.of, (k_BMHK, v_BMHK, r_SHK.unsqueeze(0)))
        return cls(_pointer(segment), *strided, *map(_pointer, rest))


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("segment", "memory", "distances", "content_bias", "position_bias")]
