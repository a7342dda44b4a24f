"""Products as a CPU has them fastest."""

from __future__ import annotations

import torch

from txlplan.nn._overrides import can_override
from txlplan.nn._product_code import tile_products
from txlplan.nn._wide_products import wide_products
from txlplan.nn._widened import has_fast_bf16, widened_products

_in_force: dict[str, torch.library.Library] = {}
"""At most one, by precision; torch takes back what it registered when it goes."""


def suit_products(*, bf16: bool, few_rows: bool = False) -> None:
    """Set up this process's products on the CPU for a plan in bf16, or in anything else, from one call to the next.

    In bf16 they are widened where torch has no fast ones, and large ones are by code of our own where the CPU has AMX; in fp32
    wide ones are oneDNN's where torch's own are slow; those too that autograd, autocast or compiled code calls. A torch that
    lends none of its kernels goes on with them. `few_rows`: for single tokens, of whose products in fp32 none is wide and each
    would wait to be asked.
    """
    precision = "bf16" if bf16 else "torch's" if few_rows else "fp32"
    if precision in _in_force:
        return
    torchs_products()
    if precision != "torch's" and can_override():
        taking_over = wide_products() if not bf16 else tile_products() if has_fast_bf16() else widened_products()
        _in_force.update({precision: taking_over} if taking_over else {})


def torchs_products() -> None:
    """Leave all products to torch, as a process begins."""
    _in_force.clear()
