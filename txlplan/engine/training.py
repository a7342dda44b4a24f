"""Training: one optimizer step, and all that it changes.

Shape suffixes: B sequences of one micro-batch, G of this process (B x accumulation), T tokens of a segment, L layers,
M memory slots, D d_model.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from txlplan.data import Dataset, SegmentLoader
from txlplan.engine import optimizers, schedules
from txlplan.engine.backend import Backend
from txlplan.engine.clipping import clip
from txlplan.errors import RunFailedError
from txlplan.nn import TransformerXL
from txlplan.plan_file import PlanFile


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one optimizer step took and gave."""

    step: int
    """Counted from 1."""
    step_s: float
    loss: float
    """Mean nats per token over all devices, before the update."""
    learning_rate: float


class _Loss(nn.Module):
    """Mean loss of a micro-batch as one forward pass, so that gradients can be averaged over processes by its wrapper."""

    def __init__(self, model: TransformerXL) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor, members: list[Tensor], memory_LBMD: Tensor, valid_length: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean nats per token, and the memory for the next segment; `members` as of `TransformerXL.nll`."""
        hidden_BTD, new_memory_LBMD = self.model(tokens_BT, memory_LBMD, valid_length)
        return self.model.nll(hidden_BTD, targets_BT, members).mean(), new_memory_LBMD


class Trainer:
    """Everything that a training run changes: weights, optimizer, loss scale, position in the data, recurrent memory, step.

    Row g of this process's streams belongs to accumulation chunk g // micro_batch, and each chunk has a recurrent memory of
    its own: the result is that of one micro-batch of all rows.
    """

    def __init__(self, plan_file: PlanFile, backend: Backend, dataset: Dataset) -> None:
        workload, self._plan = plan_file.workload, plan_file.plan
        self.backend = backend
        self.settings = workload.optimization
        self.global_batch = self._plan.global_batch
        self.tgt_len = workload.model.tgt_len
        self.model = create_model(plan_file, backend)
        self.optimizer = optimizers.create(self.settings, self.model)
        self.scaler = backend.grad_scaler()
        self.loader = SegmentLoader(
            dataset.tokens(plan_file.data.split),
            batch=self._plan.micro_batch * self._plan.accumulation,
            tgt_len=self.tgt_len,
            rank=backend.world.rank,
            world_size=backend.world.size,
        )
        self.step = 0
        self.last_checkpoint: Path | None = None
        """Of this run; what saves and loads them says so."""
        self._directory = Path(plan_file.run.directory)
        self.tokens_per_step = self.global_batch * self.tgt_len
        tokens = workload.tokens or self.loader.steps_per_epoch * self.tokens_per_step
        self.total_steps = -(-tokens // self.tokens_per_step)
        self._loss = backend.distribute(_Loss(self.model))
        self._to_be_captured = self._plan.compile
        self.note = ""
        """Why a step is not as planned, if it is not."""
        self.forget()

    def forget(self) -> None:
        """Empty the recurrent memory."""
        self.memory = [
            self.model.initial_memory(self._plan.micro_batch, self.backend.device, torch.float32)
            for _ in range(self._plan.accumulation)
        ]
        self.valid_length = torch.zeros((), dtype=torch.int64, device=self.backend.device)

    def train_step(self) -> StepResult:
        """Load, forward and backward per chunk, clip, update. Raises RunFailedError naming the step of a non-finite loss."""
        start_s = perf_counter()
        loss = self._checked(self._accumulate())
        learning_rate = self.settings.learning_rate * schedules.factor(self.settings, self.step, self.total_steps)
        self._update(learning_rate)
        self.backend.synchronize()
        self.step += 1
        return StepResult(step=self.step, step_s=perf_counter() - start_s, loss=loss, learning_rate=learning_rate)

    def _accumulate(self) -> Tensor:
        """Gradients of the mean loss over all chunks; its value on this process."""
        inputs_GT, targets_GT = (torch.from_numpy(array) for array in self.loader.next())
        if self.loader.wrapped:
            self.forget()
        rows, last = self._plan.micro_batch, self._plan.accumulation - 1
        if self._to_be_captured:
            self._capture(inputs_GT[:rows])
        total = torch.zeros((), device=self.backend.device)
        for chunk in range(self._plan.accumulation):
            here = slice(chunk * rows, (chunk + 1) * rows)
            with self._reduction(wanted=chunk == last):
                total += self._backward(chunk, inputs_GT[here], targets_GT[here])
        self.valid_length = self.model.advance(self.valid_length)
        return total

    def _capture(self, inputs_BT: Tensor) -> None:
        """Have the layers run as graphs from now on: weights that are loaded are there by now.

        Gradients of graphs lie where the next micro-batch's will: where several are added, parameters have their own.
        """
        self._to_be_captured = False
        try:
            self.model.capture(inputs_BT.to(self.backend.device), self.backend.autocast(keeps_casts=False))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.note = f"the layers could not be captured as graphs, and run without: {str(error).splitlines()[0]}"
        if self._adds_to_captured:
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter)

    @property
    def _adds_to_captured(self) -> bool:
        return self.model.is_captured and self._plan.accumulation > 1

    def _backward(self, chunk: int, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        device = self.backend.device
        members = [each.to(device) for each in self.model.softmax.members(targets_BT.flatten())]
        inputs_BT, targets_BT = inputs_BT.to(device), targets_BT.to(device)
        with self.backend.autocast():
            loss, memory_LBMD = self._loss(inputs_BT, targets_BT, members, self.memory[chunk], self.valid_length)
        self.memory[chunk] = memory_LBMD.clone() if self._adds_to_captured else memory_LBMD
        share = loss / self._plan.accumulation
        self.scaler.scale(share).backward()
        return share.detach()

    def _reduction(self, *, wanted: bool) -> AbstractContextManager[Any]:
        """Gradients cross processes once a step, with the last chunk."""
        skipped = isinstance(self._loss, DistributedDataParallel) and not wanted
        return self._loss.no_sync() if skipped else nullcontext()

    def _checked(self, loss: Tensor) -> float:
        """The mean over processes, which therefore all stop at the same step."""
        value = self.backend.sums([float(loss)])[0] / self.backend.world.size
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value} in step {self.step + 1}")
        return value

    def _update(self, learning_rate: float) -> None:
        optimizers.set_learning_rate(self.optimizer, learning_rate)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            clip(self.optimizer, self.settings.clip_norm, scaled=self.scaler.is_enabled())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self._adds_to_captured)

    def check_weights(self) -> None:
        """Raise RunFailedError when a weight is not finite, so that such weights never become a checkpoint."""
        norms = [torch.linalg.vector_norm(parameter.detach()) for parameter in self.model.parameters()]
        if not bool(torch.isfinite(torch.stack(norms)).all()):
            raise self._diverged(f"a weight is no longer finite after step {self.step}")

    def _diverged(self, what: str) -> RunFailedError:
        """Says which checkpoint is good, and where the learning rate stands that a resumed run reads."""
        saved, directory = self.last_checkpoint, self._directory
        if saved is None:
            kept, onward = "no checkpoint had been saved", "begins again; or start with --learning-rate in a new --directory"
        else:
            kept, onward = f"the last checkpoint is good: {saved}", "goes on from it"
        return RunFailedError(
            f"{what}; {kept}",
            hint=f"lower learning_rate (now {self.settings.learning_rate:g}) under [workload.optimization] in "
            f"{directory / 'plan.toml'}: `txlplan run {directory} --resume` then {onward}",
        )


def create_model(plan_file: PlanFile, backend: Backend) -> TransformerXL:
    """The model on its device, the same on every process, with dropout seeded per process."""
    seed = plan_file.run.seed
    torch.manual_seed(seed)
    model = TransformerXL(plan_file.workload.model)
    if backend.device.type != "cpu":  # fake tensors, which a trace makes on the CPU, cannot be moved
        model = model.to(backend.device)
    model.activation_checkpointing = plan_file.plan.activation_checkpointing
    model.checkpointed_layers = plan_file.plan.checkpointed_layers
    model.use_attention(plan_file.plan.attention)
    torch.manual_seed(seed + _RANK_SEED_STRIDE * (backend.world.rank + 1))
    return model


_RANK_SEED_STRIDE = 1_000_003
"""Between the seeds of two processes, so that neighbouring seeds of the user do not share streams."""
