"""The optimizer of a workload, with its groups for weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from txlplan.engine.lamb import Lamb
from txlplan.model._tiles import GPU_UPDATED_TOGETHER, UPDATED_TOGETHER
from txlplan.workload import Optimization


def create(settings: Optimization, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over all parameters of `model`.

    Adam and AdamW are torch's fused ones: one pass over each parameter, no temporary tensors, two states of its size.
    LAMB updates several small parameters by one operation, Adafactor one parameter at a time.
    `adam` decays by the L2 term of Kingma and Ba, the others decouple it; biases and gains are never decayed.
    """
    groups = parameter_groups(settings, model)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=settings.learning_rate)
    if settings.optimizer == "lamb":
        buckets = [bucket for group in groups for bucket in _buckets(group)]
        return Lamb(buckets, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


def parameter_groups(settings: Optimization, model: nn.Module) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and biases and gains (vectors, and whatever is named a bias), which do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (kept if parameter.ndim < 2 or name.endswith("bias") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _buckets(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The group in parts, in order, which are updated one after another."""
    bucket: list[nn.Parameter] = []
    most = GPU_UPDATED_TOGETHER if group["params"][0].is_cuda else UPDATED_TOGETHER
    for parameter in group["params"]:
        if bucket and sum(each.numel() for each in (*bucket, parameter)) > most:
            yield {**group, "params": bucket}
            bucket = []
        bucket.append(parameter)
    yield {**group, "params": bucket}


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use `learning_rate` in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def named_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """Every state tensor, named `<parameter>/<state>`: independent of the order of parameters."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put back what `named_state` gave; the tensors become the optimizer's own."""
    parameters = dict(model.named_parameters())
    for name, value in state.items():
        parameter_name, _, key = name.rpartition("/")
        optimizer.state[parameters[parameter_name]][key] = value


def state_device(optimizer: torch.optim.Optimizer, name: str, device: torch.device) -> torch.device:
    """Where the state `<parameter>/<state>` lives: with its parameter, but for step counts, which only fused kernels move."""
    counted_on_host = name.endswith("/step") and not optimizer.defaults.get("fused")
    return torch.device("cpu") if counted_on_host else device
