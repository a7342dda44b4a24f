"""LAMB: Adam whose step is scaled, tensor by tensor, to the norm of what it updates (You et al. 2020, arXiv:1904.00962)."""

from __future__ import annotations

import math
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
        """Update every parameter that has a gradient, those of a group together."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """With s = sqrt(1 - beta2^step): r = s / (1 - beta1^step) * m / (sqrt(v) + s * epsilon) + weight_decay * w."""
        states = [self._state(parameter) for parameter in parameters]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        gradients = [parameter.grad for parameter in parameters]
        (beta1, beta2), steps = group["betas"], [state["step"].add_(1).item() for state in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        roots = torch._foreach_sqrt(squares)
        scales = [math.sqrt(1 - beta2**step) for step in steps]
        torch._foreach_add_(roots, [scale * group["eps"] for scale in scales])
        directions = torch._foreach_mul(parameters, group["weight_decay"])
        shares = [scale / (1 - beta1**step) for scale, step in zip(scales, steps, strict=True)]
        torch._foreach_addcdiv_(directions, means, roots, shares)
        torch._foreach_mul_(directions, list((_trust(parameters, directions) * -group["lr"]).unbind()))
        torch._foreach_add_(parameters, directions)

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _trust(parameters: list[Tensor], directions: list[Tensor]) -> Tensor:
    """|w| / |r| [parameters], 1 where either is zero; stays on the device."""
    weight_norms, direction_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, directions))
    usable = (weight_norms > 0) & (direction_norms > 0)
    return torch.where(usable, weight_norms / direction_norms, 1.0)
