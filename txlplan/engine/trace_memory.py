"""What is alive while a step runs on fake tensors: storages, from the operation that makes them until they are freed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from txlplan.model._tiles import padded_keys

_aten = torch.ops.aten


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


_FLOPS = {**flop_registry, _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""How many an operation computes; torch leaves out those of its attention on a CPU."""


class Answers(TorchDispatchMode):
    """Answers what fake tensors cannot, since it depends on values: how many elements `nonzero` finds (`sizes` in turn),
    and the value of an element, which is 1."""

    def __init__(self, sizes: Iterator[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is _aten.nonzero.default:
            return torch.zeros(next(self._sizes), args[0].ndim, dtype=torch.int64)
        if func is _aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


@contextmanager
def fused_attention() -> Iterator[None]:
    """Meanwhile torch's attention is the memory-efficient kernel of CUDA, which fake tensors of any device can run."""
    usual = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _efficient_attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = usual


def _efficient_attention(
    query_BHTK: Tensor, key_BHSK: Tensor, value_BHSK: Tensor, *, attn_mask: Tensor, dropout_p: float, scale: float
) -> Tensor:
    assert all(padded_keys(stride) == stride for stride in attn_mask.stride()[:-1]), "torch would copy this bias"
    mixed_BHTK: Tensor
    arguments = (query_BHTK, key_BHSK, value_BHSK, attn_mask, True, dropout_p)
    mixed_BHTK, *_ = _aten._scaled_dot_product_efficient_attention(*arguments, scale=scale)
    return mixed_BHTK


class Watch(TorchDispatchMode):
    """Counts bytes of storages that operations under it made and nobody has freed, and FLOPs by phase.

    FLOPs are those of FlopCounterMode, whose own tracker of modules would keep tensors alive that checkpointing recomputes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.peak_operation = ""
        self.kept_bytes: int | None = None
        """Alive when backward first began; None: it has not."""
        self.flops = dict.fromkeys(("forward", "backward", "update"), 0)
        """By phase."""
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._phase = "forward"

    def begin(self) -> None:
        """Forget the past: what follows is to be watched."""
        self.peak_bytes, self.peak_operation, self.kept_bytes = self.live_bytes, "", None
        self.flops, self._phase = dict.fromkeys(("forward", "backward", "update"), 0), "forward"

    def update(self, *_: Any) -> None:
        """What follows, until backward begins again, is the optimizer's: a hook before its step."""
        self._phase = "update"

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self._enter_phase()
        out = func(*args, **(kwargs or {}))
        count = _FLOPS.get(func.overloadpacket)
        if count is not None:
            self.flops[self._phase] += count(*args, **(kwargs or {}), out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._meet(leaf.untyped_storage())
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_operation = self.live_bytes, str(func.overloadpacket).removeprefix("aten.")
        return out

    def _enter_phase(self) -> None:
        """Autograd knows whether it is going backward."""
        going_backward = torch._C._current_graph_task_id() != -1
        if going_backward and self.kept_bytes is None:
            self.kept_bytes = self.live_bytes
        if going_backward:
            self._phase = "backward"
        elif self._phase == "backward":
            self._phase = "forward"

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        known = self._known.get(key)
        if known is not None and known() is storage:
            return

        def freed(_: Any) -> None:
            self.live_bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self.live_bytes += size
