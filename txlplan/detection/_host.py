"""What it costs the host to dispatch one operation: a model so small that nothing else takes time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from txlplan.choices import Task
from txlplan.cost import Settings, build
from txlplan.cost._op_stream import OpStream
from txlplan.detection._timing import Work, time_call
from txlplan.engine.sampling import choose
from txlplan.hardware import Implementation
from txlplan.model import ModelConfig
from txlplan.nn import Inference, KeyValueRing, TransformerXL
from txlplan.plan_file import Sampling
from txlplan.workload import Optimization

_TINY = ModelConfig(id="probe-host", n_layer=2, d_model=8, n_head=2, d_head=4, d_inner=8, vocab_size=16, tgt_len=2, mem_len=2)
_REPEATS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """Host seconds per operation, as the cost model counts operations."""

    forward_s: float
    backward_s: float
    reading_s: float
    """Where nothing is differentiated: a token of one row, keys and values kept, and the next one drawn."""

    @classmethod
    def middle(cls, several: Sequence[Dispatch]) -> Dispatch:
        """The median of each."""
        forward, backward, reading = zip(*((each.forward_s, each.backward_s, each.reading_s) for each in several), strict=True)
        return cls(
            forward_s=statistics.median(forward), backward_s=statistics.median(backward), reading_s=statistics.median(reading)
        )


def dispatch_cost(device: str, synchronize: Work) -> Dispatch:
    """Time a tiny Transformer-XL, and divide by the operations that the cost model counts.

    By the fast path, as the stack of the device runs it. What no operation stands for (views, modules, autograd's own
    bookkeeping) is thereby spread over those that are counted.

    To be called with one thread: what waking others costs belongs to the operations that use them.
    """
    implementation: Implementation = "fast" if device == "cpu" else "fused"
    reader = Inference(TransformerXL(_TINY).to(device), rows=1)
    ring = KeyValueRing(_TINY, 1, longest=1, dtype=torch.float32, device=device)
    ring.filled, random = [_TINY.mem_len], torch.Generator(device=device)
    word = torch.zeros(1, 1, dtype=torch.int64, device=device)

    def read() -> None:
        logarithms = reader.log_probabilities(reader.read(word, ring)[:, -1]).float()
        choose(logarithms, Sampling(), random).tolist()

    counted, read_one = operations("train", implementation), operations("generate", implementation)
    forward_s, backward_s = training_s(device, synchronize)
    read()
    reading_s = statistics.median(time_call(read, synchronize, sample_s=0.0) for _ in range(_REPEATS))
    return Dispatch(
        forward_s=forward_s / float(counted.total(counted.dispatched, "forward")[0]),
        backward_s=backward_s / float(counted.total(counted.dispatched, "backward")[0]),
        reading_s=reading_s / float(read_one.total(read_one.dispatched, "forward")[0]),
    )


def operations(task: Task, implementation: Implementation, *, rows: int = 1) -> OpStream:
    """Of the tiny model, as the cost model counts them."""
    settings = Settings(model=_TINY, task=task, optimization=Optimization(), implementation=implementation)
    return build(settings, np.array([float(rows)]))


def training_s(device: str, synchronize: Work, *, rows: int = 1) -> tuple[float, float]:
    """Seconds of forward and of backward of the tiny model, by the median of the repeats."""
    model = TransformerXL(_TINY).to(device)
    model.use_attention("fast")
    tokens = torch.zeros(rows, _TINY.tgt_len, dtype=torch.int64, device=device)
    memory, valid = model.initial_memory(rows, device), torch.zeros((), dtype=torch.int64, device=device)
    times: list[tuple[float, float]] = []
    for _ in range(_REPEATS):
        model.zero_grad(set_to_none=True)
        synchronize()
        start = time.perf_counter()
        hidden, _ = model(tokens, memory, valid)
        loss = model.nll(hidden, tokens).mean()
        synchronize()
        middle = time.perf_counter()
        loss.backward()
        synchronize()
        times.append((middle - start, time.perf_counter() - middle))
    forward_s, backward_s = (statistics.median(column) for column in zip(*times, strict=True))
    return forward_s, backward_s
