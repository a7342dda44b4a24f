"""Products of torch's that are taken over on a CPU, also where autograd, autocast or compiled code calls them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Override = Callable[..., Tensor]
"""As a product of torch's, after its dispatch keys. Operands: what is added (none or one), and the factors."""


def can_override() -> bool:
    """Whether torch lends its kernels, for what is not taken over."""
    return hasattr(torch.library, "get_kernel")


def overriding(
    names: Iterable[str],
    override: Callable[[Any, str], Override],
    into: Callable[[Any, Any, str], Override] | None = None,
) -> torch.library.Library:
    """What overrides products of these names for as long as it is kept.

    `override` makes of a product's kernel what is called in its place, and `into` of its kernel and that into a tensor that is
    there (None: that stays torch's). Kernels are looked up before, as torch then takes back what it registered when it goes.
    """
    library = torch.library.Library("aten", "IMPL")
    overrides: dict[str, Override] = {}
    for name in names:
        whole, out = (torch.library.get_kernel(f"aten::{name}{overload}", "CPU") for overload in ("", ".out"))
        overrides |= {name: override(whole, name)} | ({f"{name}.out": into(whole, out, name)} if into else {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*other operators may also be overridden", category=UserWarning)
        for name, taking_over in overrides.items():
            library.impl(name, taking_over, "CPU", with_keyset=True, allow_override=True)
    return library
