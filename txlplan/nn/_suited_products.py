"""Products of bf16 as a CPU has them fastest."""

from __future__ import annotations

import torch

from txlplan.nn._overrides import can_override
from txlplan.nn._product_code import tile_products
from txlplan.nn._widened import has_fast_bf16, widened_products

_in_force: list[torch.library.Library] = []
"""At most one; torch takes back what it registered when it goes."""


def suit_products(*, bf16: bool) -> None:
    """Set up this process's products on the CPU for a plan in bf16, or in anything else, from one call to the next.

    In bf16 they are widened where torch has no fast ones, and large ones are by code of our own where the CPU has AMX; those
    too that autograd, autocast or compiled code calls. A torch that lends none of its kernels goes on with them.
    """
    if not bf16:
        _in_force.clear()
    elif not _in_force and can_override():
        taking_over = tile_products() if has_fast_bf16() else widened_products()
        _in_force.extend([taking_over] if taking_over else [])
