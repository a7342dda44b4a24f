"""A step of the real worker on fake tensors: FLOPs and memory, with nothing allocated and nothing computed, at any size.

The cost model's op stream is tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import cycle
from typing import cast

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from txlplan.cost._ring import capacity
from txlplan.data import Dataset
from txlplan.engine.backend import Backend
from txlplan.engine.trace_memory import Answers, Watch, fused_attention
from txlplan.engine.training import Trainer, create_model
from txlplan.engine.world import World
from txlplan.model import ModelConfig
from txlplan.nn import Inference
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings
from txlplan.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """What one step of one process did; a multiply-add is two FLOPs, and only matrix products count any."""

    parameters: int
    forward_flops: int
    backward_flops: int
    """Recomputation of activation checkpointing included."""
    saved_bytes: int
    """Alive between forward and backward of the first micro-batch, and not before the step; 0 without a backward."""
    peak_bytes: int
    """Of tensors: parameters, gradients, optimizer states, recurrent memory, activations and transients."""
    peak_operation: str
    """Where that was."""


def trace(workload: Workload, plan: Plan, tail_targets: Sequence[int] | None = None, *, fused: bool = False) -> Traced:
    """One optimizer step (train), segment (score) or token (generate) of one process on a CPU, with full recurrent memory.

    Before it an optimizer has made its states, and kept keys and values are about to be moved within their buffers: both
    belong to the fullest step; nothing is compiled. `tail_targets`: how many of the micro_batch x tgt_len targets are words
    of each further cluster of an adaptive softmax, which is evaluated for those alone; None: in proportion to the clusters'
    words. `fused`: the fast path is the one that runs on CUDA.
    """
    model = workload.model
    sizes = list(_uniform_targets(model, plan.micro_batch) if tail_targets is None else tail_targets)
    if len(sizes) != model.n_clusters - 1:
        raise ValueError(f"tail_targets has {len(sizes)} entries for {model.n_clusters - 1} further clusters")
    plan_file = _plan_file(workload, replace(plan, compile=False))
    backend = Backend(device=torch.device("cpu"), precision=plan.precision, world=World())
    fake, attention = FakeTensorMode(allow_non_fake_inputs=True), fused_attention() if fused else nullcontext()
    with torch.random.fork_rng(devices=[]), fake, Answers(cycle(sizes)), attention, Watch() as watch:
        if workload.task == "train":
            return _train(plan_file, backend, watch, fused=fused and plan.attention == "fast")
        return _read(plan_file, backend, watch, fused=fused)


def _train(plan_file: PlanFile, backend: Backend, watch: Watch, *, fused: bool) -> Traced:
    trainer = Trainer(plan_file, backend, cast("Dataset", _Zeros(plan_file)))
    if fused:
        trainer.model.use_attention("fused")
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.optimizer.register_step_pre_hook(watch.update)
    watch.begin()
    before = watch.live_bytes
    trainer.train_step()
    assert watch.kept_bytes is not None
    return _traced(trainer.model, watch, watch.kept_bytes - before)


def _read(plan_file: PlanFile, backend: Backend, watch: Watch, *, fused: bool) -> Traced:
    """As scoring and generating do: with keys and values kept, and positions projected before."""
    model, task, rows = plan_file.workload.model, plan_file.workload.task, plan_file.plan.micro_batch
    length = 1 if task == "generate" else model.tgt_len
    module = create_model(plan_file, backend).eval().requires_grad_(False)
    if fused:
        module.use_attention("fused")
    reader = Inference(module, dtype=backend.narrow_dtype)
    ring = reader.ring(rows, longest=length)
    for _ in range((capacity(model, length) - model.mem_len) // length):
        ring.advance(length)
    ring.filled = [model.mem_len] * rows
    reader.distances(model.mem_len + length)
    tokens_BT = torch.zeros(rows, length, dtype=torch.int64)
    watch.begin()
    hidden_BTD = reader.read(tokens_BT, ring)
    _ = reader.log_probabilities(hidden_BTD[:, -1]) if task == "generate" else reader.nll(hidden_BTD, tokens_BT)
    return _traced(module, watch, 0)


def _traced(module: torch.nn.Module, watch: Watch, saved_bytes: int) -> Traced:
    return Traced(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        forward_flops=watch.flops["forward"],
        backward_flops=watch.flops["backward"],
        saved_bytes=saved_bytes,
        peak_bytes=watch.peak_bytes,
        peak_operation=watch.peak_operation,
    )


class _Zeros:
    """A data set long enough for a step."""

    def __init__(self, plan_file: PlanFile) -> None:
        plan = plan_file.plan
        self._tokens = plan.micro_batch * plan.accumulation * (plan_file.workload.model.tgt_len + 1)

    def tokens(self, _split: str) -> np.ndarray:
        """Of any split."""
        return np.zeros(self._tokens, dtype=np.uint16)


def _plan_file(workload: Workload, plan: Plan) -> PlanFile:
    nowhere = "(traced)"
    return PlanFile(
        system=nowhere,
        stack=nowhere,
        workload=workload,
        plan=plan,
        data=DataSettings(directory=nowhere),
        run=RunSettings(directory=nowhere),
    )


def _uniform_targets(config: ModelConfig, micro_batch: int) -> list[int]:
    targets = micro_batch * config.tgt_len
    return [round(targets * size / config.vocab_size) for size in config.cluster_sizes[1:]]
