"""What it costs the host to dispatch one operation: a model so small that nothing else takes time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from txlplan.choices import AttentionPath
from txlplan.cost import Settings, build
from txlplan.detection._timing import Work
from txlplan.model import ModelConfig
from txlplan.nn import TransformerXL
from txlplan.workload import Optimization

_TINY = ModelConfig(id="probe-host", n_layer=2, d_model=8, n_head=2, d_head=4, d_inner=8, vocab_size=16, tgt_len=2, mem_len=2)
_REPEATS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """Host seconds per operation, as the cost model counts operations."""

    forward_s: float
    backward_s: float


def dispatch_cost(device: str, synchronize: Work) -> Dispatch:
    """Time forward and backward of a tiny Transformer-XL and divide by the operations that the cost model counts in each.

    On a CPU by the fast path, as the stack of a CPU runs it. What no operation stands for (views, modules, autograd's own
    bookkeeping) is thereby spread over those that are counted.

    To be called with one thread: what waking others costs belongs to the operations that use them.
    """
    path: AttentionPath = "fast" if device == "cpu" else "reference"
    model = TransformerXL(_TINY).to(device)
    model.use_attention(path)
    tokens = torch.zeros(1, _TINY.tgt_len, dtype=torch.int64, device=device)
    valid = torch.zeros((), dtype=torch.int64, device=device)
    memory = model.initial_memory(1, device)

    def forward() -> Tensor:
        hidden, _ = model(tokens, memory, valid)
        return model.nll(hidden, tokens).mean()

    forward_s, backward_s = _undisturbed(model, forward, synchronize)
    stream = build(Settings(model=_TINY, optimization=Optimization(), implementation=path), np.ones(1))
    counted = {phase: float(stream.total(stream.launches, phase)[0]) for phase in ("forward", "backward")}
    return Dispatch(forward_s=forward_s / counted["forward"], backward_s=backward_s / counted["backward"])


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
