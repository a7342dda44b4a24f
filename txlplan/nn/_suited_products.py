"""Products as a CPU has them fastest."""

from __future__ import annotations

import torch

from txlplan.nn._overrides import can_override
from txlplan.nn._product_code import tile_products
from txlplan.nn._wide_products import wide_products
from txlplan.nn._widened import has_fast_bf16, widened_products

_in_force: dict[bool, torch.library.Library] = {}
"""At most one, by whether it is of bf16; torch takes back what it registered when it goes."""


def suit_products(*, bf16: bool, few_rows: bool = False) -> None:
    """Set up this process's products on the CPU for a plan in bf16, or in anything else, from one call to the next.

    In bf16 they are widened where torch has no fast ones, and large ones are by code of our own where the CPU has AMX; in fp32
    wide ones are oneDNN's where torch's own are slow; those too that autograd, autocast or compiled code calls. A torch that
    lends none of its kernels goes on with them. `few_rows`: for generation, whose products in fp32 are of few rows, but for its
    prompts', and would each wait to be asked.
    """
    if few_rows and not bf16:
        leave_to_torch()
    elif bf16 not in _in_force:
        leave_to_torch()
        taking_over = _taking_over(bf16) if can_override() else None
        _in_force.update({bf16: taking_over} if taking_over else {})


def _taking_over(bf16: bool) -> torch.library.Library | None:
    if not bf16:
        return wide_products()
    return tile_products() if has_fast_bf16() else widened_products()


def leave_to_torch() -> None:
    """All products, as a process begins."""
    _in_force.clear()
