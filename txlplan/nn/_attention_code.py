"""Attention by compiled code of our own, `attention.cpp` and `attention_bf16.cpp`: of what torch's products leave, no score is
written but what is kept.

As operations of torch's, so that they are traced, and differentiated by whoever calls them. Shape suffixes: B sequences, T
queries, S keys, H heads, K width of a head.
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
from txlplan.nn._own_code import Name, library
from txlplan.nn._tiled_scores import Gradients, Operands

_CODE: dict[torch.dtype, Name] = {torch.float32: "attention", torch.bfloat16: "attention_bf16"}


def has_attention_code(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is code for such operands: of bf16 for a CPU that multiplies it."""
    if device.type != "cpu" or dtype not in _CODE:
        return False
    return dtype == torch.float32 or bool(torch.cpu._is_avx512_bf16_supported())


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledScores(Operands):
    """What `TiledScores` computes, of fp32 or bf16 with biases in fp32, and distances S - 1, …, 0 without dummies.

    Keys that a query sees lie together: no masked one is between two of them.
    """

    def mix(self, masked_keys: Tensor, *, keep_probabilities: bool) -> tuple[Tensor, list[Tensor]]:
        """Weighted values [B, H, T, K], and all probabilities where they are to be kept."""
        mixed_BTHK, kept = _attend(*self._operands(masked_keys), self.kept_scale, keep_probabilities)
        return mixed_BTHK.transpose(1, 2), [kept] if keep_probabilities else []

    def gradients(self, mixed_BHTK: Tensor, known: Sequence[Tensor] | Tensor) -> Gradients:
        """As of `TiledScores`."""
        again = isinstance(known, Tensor)
        masked_keys = known if isinstance(known, Tensor) else known[0].new_empty(0, dtype=torch.bool)
        kept = mixed_BHTK.new_empty(0) if isinstance(known, Tensor) else known[0]
        of_mixed_BTHK = mixed_BHTK.transpose(1, 2).contiguous()
        found = _attend_backward(of_mixed_BTHK, kept, *self._operands(masked_keys), self.kept_scale, again)
        q_BTHK, kv_BS2HK, r_SHK, u_HK, v_HK = found
        return Gradients(
            q_BHTK=q_BTHK.transpose(1, 2),
            kv_2BHSK=kv_BS2HK.permute(2, 0, 3, 1, 4),
            r_HRK=r_SHK.transpose(0, 1),
            u_HK=u_HK,
            v_HK=v_HK,
        )

    def _operands(self, masked_keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        return (
            self.q_BHTK.transpose(1, 2).contiguous(),
            self.kv_2BHSK.permute(1, 3, 0, 2, 4).contiguous(),
            self.r_HRK.transpose(0, 1).to(self.q_BHTK.dtype).contiguous(),
            self.u_HK.float().contiguous(),
            self.v_HK.float().contiguous(),
            masked_keys.contiguous(),
            self.keep_BHTS,
        )


@torch.library.custom_op("txlplan::attend", mutates_args=())
def _attend(
    q_BTHK: Tensor,
    kv_BS2HK: Tensor,
    r_SHK: Tensor,
    u_HK: Tensor,
    v_HK: Tensor,
    masked_keys: Tensor,
    keep_BHTS: Tensor | None,
    kept_scale: float,
    keeps: bool,
) -> tuple[Tensor, Tensor]:
    """Weighted values [B, T, H, K], and probabilities, or nothing. `masked_keys` [1 or B, 1, T, S]; all are contiguous."""
    mixed_BTHK, kept = _made(q_BTHK, kv_BS2HK, keeps)
    code = library(_CODE[q_BTHK.dtype])
    operands = _Operands(*(_pointer(each) for each in (q_BTHK, kv_BS2HK, r_SHK, u_HK, v_HK, masked_keys, keep_BHTS)))
    sizes = _sizes(q_BTHK, kv_BS2HK, masked_keys, kept_scale)
    assert kept.numel() == (_kept_elements(code, sizes) if keeps else 0)
    out, probabilities = (ctypes.c_void_p(_pointer(each)) for each in (mixed_BTHK, kept if keeps else None))
    code.attend(ctypes.byref(sizes), ctypes.byref(operands), out, probabilities)
    return mixed_BTHK, kept


@torch.library.custom_op("txlplan::attend_backward", mutates_args=())
def _attend_backward(
    of_mixed_BTHK: Tensor,
    kept: Tensor,
    q_BTHK: Tensor,
    kv_BS2HK: Tensor,
    r_SHK: Tensor,
    u_HK: Tensor,
    v_HK: Tensor,
    masked_keys: Tensor,
    keep_BHTS: Tensor | None,
    kept_scale: float,
    again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first five operands of `_attend`; `kept` is what that kept, or, `again`, nothing."""
    found = tuple(torch.empty_like(each) for each in (q_BTHK, kv_BS2HK, r_SHK, u_HK, v_HK))
    operands = _Operands(*(_pointer(each) for each in (q_BTHK, kv_BS2HK, r_SHK, u_HK, v_HK, masked_keys, keep_BHTS)))
    sizes, gradients = _sizes(q_BTHK, kv_BS2HK, masked_keys, kept_scale), _Gradients(*map(_pointer, found))
    probabilities, out = (ctypes.c_void_p(_pointer(each)) for each in (None if again else kept, of_mixed_BTHK))
    library(_CODE[q_BTHK.dtype]).attend_backward(
        ctypes.byref(sizes), ctypes.byref(operands), probabilities, out, ctypes.byref(gradients)
    )
    return found  # type: ignore[return-value]


def _product_flops(q_shape: Sequence[int], kv_shape: Sequence[int]) -> int:
    """Of each query's product with each key of its block."""
    B, T, H, K = q_shape
    return 2 * B * H * K * sum(queries * keys for queries, keys in scored_blocks(T, kv_shape[1] - T))


def _made(q_BTHK: Tensor, kv_BS2HK: Tensor, keeps: bool) -> tuple[Tensor, Tensor]:
    """What `_attend` fills."""
    B, T, H, _ = q_BTHK.shape
    scores = kept_scores(T, kv_BS2HK.shape[1] - T, narrow=q_BTHK.dtype == torch.bfloat16)
    return torch.empty_like(q_BTHK), q_BTHK.new_empty(B * H * scores if keeps else 0)


_attend.register_fake(lambda q_BTHK, kv_BS2HK, *rest: _made(q_BTHK, kv_BS2HK, rest[-1]))
_attend_backward.register_fake(lambda _of_mixed, _kept, *rest: tuple(torch.empty_like(each) for each in rest[:5]))
register_flop_formula(torch.ops.txlplan.attend)(lambda q, kv, *_, **__: 3 * _product_flops(q, kv))
register_flop_formula(torch.ops.txlplan.attend_backward)(
    lambda _, kept, q, kv, *__, **___: (6 if kept[0] else 8) * _product_flops(q, kv)
)


def _sizes(q_BTHK: Tensor, kv_BS2HK: Tensor, masked_keys: Tensor, kept_scale: float) -> _Sizes:
    B, T, H, K = q_BTHK.shape
    return _Sizes(B, H, T, kv_BS2HK.shape[1], K, masked_keys.shape[0], torch.get_num_threads(), kept_scale)


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


class _Operands(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("queries", "keys_values", "distances", "content_bias", "position_bias", "masked", "keep")
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("queries", "keys_values", "distances", "content_bias", "position_bias")]
