"""Everything that differs between a CPU and CUDA, and between one process and several."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from txlplan.choices import Precision, Task
from txlplan.engine.world import World
from txlplan.errors import InputError
from txlplan.nn._suited_products import suit_products
from txlplan.nn._widened import has_fast_bf16
from txlplan.plan_file import Plan, PlanFile

_AUTOCAST_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One process's device and its way to the others. Parameters are fp32 whatever the precision."""

    device: torch.device
    precision: Precision
    world: World
    cpus: frozenset[int] = frozenset()
    """That this process was given, before it was kept to its own; none where the system does not tell."""

    def autocast(self, *, keeps_casts: bool = True) -> AbstractContextManager[Any]:
        """bf16 and fp16 compute under autocast; fp32 and tf32 need no context."""
        dtype = _AUTOCAST_DTYPES.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype, cache_enabled=keeps_casts)

    @property
    def narrow_dtype(self) -> torch.dtype | None:
        """What weights are cast to where nothing is trained; None: they stay as they are."""
        return _AUTOCAST_DTYPES.get(self.precision)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Scales the loss under fp16, on a CPU too; does nothing under any other precision."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def synchronize(self) -> None:
        """Wait until the device has done everything asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def distribute(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes; the module itself when there is one process.

        Gradients are views into the communication buckets, so that they exist once.
        """
        if self.world.size == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def maxima(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the processes."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def _reduce(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.world.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, operation)
        return [float(value) for value in tensor.tolist()]

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world.size > 1:
            self.maxima([0.0])

    def close(self) -> None:
        """Leave the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()


def flush_tiny_numbers() -> None:
    """Take numbers too small to be normal (below 1.2e-38) for zero in this thread, and in those that torch starts from now on.

    A trained model's attention is full of them, and products of them take an Intel CPU several times as long.
    """
    torch.set_flush_denormal(True)


def open_backend(plan_file: PlanFile, world: World) -> Backend:
    """Set this process up as the plan says: device, threads, precision, determinism, and the group of processes.

    Raises InputError when the device is not there or the number of processes is not the plan's.
    """
    if world.size != plan_file.plan.data_parallel:
        raise InputError(
            f"{world.size} process(es) were started, but plan.data_parallel = {plan_file.plan.data_parallel}",
            hint="start it with `txlplan run`, or with torchrun --nproc-per-node of that number",
        )
    device = _device(plan_file.run.device, world)
    if plan_file.run.deterministic:
        _be_deterministic(device)
    if world.size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    cpus = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
    return as_planned(Backend(device=device, precision="fp32", world=world, cpus=cpus), plan_file.plan, plan_file.workload.task)


def as_planned(backend: Backend, plan: Plan, task: Task) -> Backend:
    """Set this process to a plan's threads, and the precision of its task, on the device and among the processes that it has.

    Several processes of a node are each kept to CPUs of their own.
    """
    if plan.threads is not None:
        if backend.cpus:
            os.sched_setaffinity(0, backend.world.own_cpus(backend.cpus, plan.threads))
        torch.set_num_threads(plan.threads)
    backend = computing(backend, plan, task)
    torch.set_float32_matmul_precision("high" if backend.precision == "tf32" else "highest")
    if backend.device.type == "cpu":
        suit_products(bf16=backend.precision == "bf16", few_rows=task == "generate")
    return backend


def computing(backend: Backend, plan: Plan, task: Task) -> Backend:
    """The same in the precision in which a plan's task computes here; the process is left as it is."""
    units = backend.device.type != "cpu" or has_fast_bf16()
    return dataclasses.replace(backend, precision=plan.computes_in(task, bf16_units=units))


def _device(kind: str, world: World) -> torch.device:
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            "run.device = 'cuda', but torch sees no CUDA device here",
            hint='`txlplan hardware detect` shows what it sees; run.device = "cpu" runs without',
        )
    if world.local_rank >= torch.cuda.device_count():
        raise InputError(f"process {world.local_rank} of this node has no CUDA device: there are {torch.cuda.device_count()}")
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def _be_deterministic(device: torch.device) -> None:
    """Bit-exact on a CPU; on CUDA an operation without a deterministic kernel warns and runs.

    `use_deterministic_algorithms` would tell torch's compiler too, and load it for that.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.utils.deterministic.fill_uninitialized_memory = False
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        torch.set_deterministic_debug_mode("error")
