"""LAMB: Adam whose step is scaled, tensor by tensor, to the norm of what it updates (You et al. 2020, arXiv:1904.00962)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """Algorithm 2 of the paper, with bias correction and phi(x) = x.

    With m and v Adam's bias-corrected moments: r = m / (sqrt(v) + epsilon) + weight_decay * w, and
    w ← w - lr * (|w| / |r|) * r, where the ratio is 1 when either norm is zero.
    State of a parameter: `step` and two tensors of its size.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean, square, step = state["exp_avg"], state["exp_avg_sq"], state["step"].item()
        mean.lerp_(parameter.grad, 1 - beta1)
        square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        direction = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        torch.div(mean / (1 - beta1**step), direction, out=direction)
        direction.add_(parameter, alpha=group["weight_decay"])
        parameter.sub_(direction.mul_(group["lr"] * _trust(parameter, direction)))


def _trust(parameter: Tensor, direction: Tensor) -> Tensor:
    """|w| / |r|, or 1 when either is zero; stays on the device."""
    weight_norm, direction_norm = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(direction)
    usable = (weight_norm > 0) & (direction_norm > 0)
    return torch.where(usable, weight_norm / direction_norm, torch.ones_like(weight_norm))
