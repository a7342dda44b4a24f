"""FLOPs of the real module, counted by tracing it on fake tensors: no memory, no arithmetic, any size.

The cost model's op stream is tested against these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from txlplan.choices import AttentionPath, Checkpointing, Task
from txlplan.model import ModelConfig
from txlplan.nn import Inference, TransformerXL


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedFlops:
    """FLOPs of matrix products of one micro-batch (a multiply-add is two), and the parameters they use."""

    parameters: int
    forward: int
    backward: int
    """Recomputation of activation checkpointing included."""
    forward_by_op: Mapping[str, int]
    backward_by_op: Mapping[str, int]


def trace_flops(
    config: ModelConfig,
    micro_batch: int,
    task: Task = "train",
    *,
    activation_checkpointing: Checkpointing = "none",
    attention: AttentionPath = "reference",
    tail_targets: Sequence[int] | None = None,
) -> TracedFlops:
    """One segment (train, score) or one token (generate) of each of `micro_batch` sequences, with full recurrent memory.

    `tail_targets`: how many of the micro_batch x tgt_len targets are words of each further cluster of an adaptive softmax,
    which is evaluated for those alone. None: in proportion to the clusters' words, as for uniformly distributed words.
    """
    sizes = list(_uniform_targets(config, micro_batch) if tail_targets is None else tail_targets)
    if len(sizes) != config.n_clusters - 1:
        raise ValueError(f"tail_targets has {len(sizes)} entries for {config.n_clusters - 1} further clusters")
    with FakeTensorMode(), torch.device("cpu"), _ChosenSizes(sizes):
        model = TransformerXL(config).train(task == "train")
        model.activation_checkpointing = activation_checkpointing
        model.use_attention(attention)
        with torch.set_grad_enabled(task == "train"):
            run = _read if attention == "fast" and task != "train" else _forward
            forward, output = run(model, config, micro_batch, task)
            backward = _backward(output) if task == "train" else {}
        parameters = sum(parameter.numel() for parameter in model.parameters())
    return TracedFlops(
        parameters=parameters,
        forward=sum(forward.values()),
        backward=sum(backward.values()),
        forward_by_op=forward,
        backward_by_op=backward,
    )


def _uniform_targets(config: ModelConfig, micro_batch: int) -> list[int]:
    targets = micro_batch * config.tgt_len
    return [round(targets * size / config.vocab_size) for size in config.cluster_sizes[1:]]


class _ChosenSizes(TorchDispatchMode):
    """Answers `nonzero`, whose result's size depends on values that fake tensors lack, with given sizes in turn."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = iter(sizes)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:
            return torch.zeros(next(self._sizes), args[0].ndim, dtype=torch.int64)
        return func(*args, **(kwargs or {}))


def _read(model: TransformerXL, config: ModelConfig, micro_batch: int, task: Task) -> tuple[dict[str, int], torch.Tensor]:
    """As the fast path scores and generates: with keys and values kept, and positions projected before."""
    tokens_BT = torch.zeros(micro_batch, 1 if task == "generate" else config.tgt_len, dtype=torch.int64)
    reader = Inference(model)
    ring = reader.ring(micro_batch, longest=tokens_BT.shape[1])
    ring.filled = [config.mem_len] * micro_batch
    reader.distances(config.mem_len + tokens_BT.shape[1])
    with FlopCounterMode(display=False) as counter:
        hidden_BTD = reader.read(tokens_BT, ring)
        output = reader.log_probabilities(hidden_BTD[:, -1]) if task == "generate" else reader.nll(hidden_BTD, tokens_BT)
    return _by_op(counter), output


def _forward(model: TransformerXL, config: ModelConfig, micro_batch: int, task: Task) -> tuple[dict[str, int], torch.Tensor]:
    tokens_BT = torch.zeros(micro_batch, 1 if task == "generate" else config.tgt_len, dtype=torch.int64)
    memory = model.initial_memory(micro_batch, torch.device("cpu"), torch.float32)
    valid_length = torch.full((), config.mem_len, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        hidden_BTD, _memory = model(tokens_BT, memory, valid_length)
        output = model.log_probabilities(hidden_BTD[:, -1]) if task == "generate" else model.nll(hidden_BTD, tokens_BT)
    return _by_op(counter), output


def _backward(nll_BT: torch.Tensor) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        nll_BT.mean().backward()
    return _by_op(counter)


def _by_op(counter: FlopCounterMode) -> dict[str, int]:
    return {str(op): int(flops) for op, flops in counter.get_flop_counts().get("Global", {}).items()}
