"""What it costs the host to dispatch one operation: a model so small that nothing else takes time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from txlplan.detection._timing import Work
from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL

_TINY = ModelConfig(id="probe-host", n_layer=2, d_model=8, n_head=2, d_head=4, d_inner=8, vocab_size=16, tgt_len=2, mem_len=2)
_REPEATS = 80
_VIEWS = ("view", "_unsafe_view", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "t",
          "alias", "unbind", "split", "as_strided", "unflatten", "reshape", "empty", "empty_strided", "empty_like")  # fmt: skip
"""Operations that start no kernel: their cost is counted into those that do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """Host seconds per operation that starts a kernel."""

    forward_s: float
    backward_s: float


def dispatch_cost(device: str, synchronize: Work) -> Dispatch:
    """Time forward and backward of a tiny Transformer-XL and divide by the operations that each dispatches.

    To be called with one thread: what waking others costs belongs to the operations that use them.
    """
    model = TransformerXL(_TINY).to(device)
    tokens = torch.zeros(1, _TINY.tgt_len, dtype=torch.int64, device=device)
    valid = torch.zeros((), dtype=torch.int64, device=device)
    memory = model.initial_memory(1, device)

    def forward() -> Tensor:
        hidden, _ = model(tokens, memory, valid)
        return model.nll(hidden, tokens).mean()

    with _Counter() as counted_forward:
        loss = forward()
    with _Counter() as counted_backward:
        loss.backward()
    forward_s, backward_s = _undisturbed(model, forward, synchronize)
    return Dispatch(forward_s=forward_s / counted_forward.kernels, backward_s=backward_s / counted_backward.kernels)


def _undisturbed(model: TransformerXL, forward: Callable[[], Tensor], synchronize: Work) -> tuple[float, float]:
    """Seconds of forward and of backward: the median of the quickest quarter of the repeats, since noise only adds."""
    times: list[tuple[float, float]] = []
    for _ in range(_REPEATS):
        model.zero_grad(set_to_none=True)
        synchronize()
        start = time.perf_counter()
        loss = forward()
        synchronize()
        middle = time.perf_counter()
        loss.backward()
        synchronize()
        times.append((middle - start, time.perf_counter() - middle))
    forward_s, backward_s = (statistics.median(sorted(column)[: _REPEATS // 4]) for column in zip(*times, strict=True))
    return forward_s, backward_s


class _Counter(TorchDispatchMode):
    """Counts operations that start a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ not in _VIEWS:
            self.kernels += 1
        return func(*args, **(kwargs or {}))
