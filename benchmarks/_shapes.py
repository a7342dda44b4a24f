"""Products of one layer's training step in bf16, by torch and by tiles of our own, in turn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from _contenders import CONFIGS
from _pairs import ratio
from torch import Tensor

from txlplan.nn._product_code import has_tiles, multiply

BF16 = torch.bfloat16
_CALLS = 10
"""Of one product, timed together."""


def shapes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each product, and all of them together as their times add up."""
    if not has_tiles():
        sys.exit("no AMX here, or no C++ compiler: torch's are the only products")
    found = [
        (name, ratio(*_both(left, right), pairs=options.pairs, a_units=_CALLS, b_units=_CALLS))
        for name, left, right in _factors(options)
    ]
    all_s = [sum(each.a_s for _, each in found), sum(each.b_s for _, each in found)]
    return [{"what": name, **asdict(each)} for name, each in found] + [
        {"what": "all", "value": all_s[0] / all_s[1], "a_s": all_s[0], "b_s": all_s[1], "pairs": options.pairs}
    ]


def _both(left: Tensor, right: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    """By torch, and by tiles."""
    out = torch.empty(left.shape[0], right.shape[1], dtype=BF16)

    def torchs() -> None:
        for _ in range(_CALLS):
            torch.mm(left, right, out=out)

    def ours() -> None:
        for _ in range(_CALLS):
            multiply(left, right, out)

    return torchs, ours


def _factors(options: argparse.Namespace) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Of the four weights: forward, and the gradients of input and weight."""
    model = CONFIGS[options.config]
    width, rows = model.n_head * model.d_head, options.rows * model.tgt_len
    weights = {
        "q, k and v": (3 * width, model.d_model),
        "attention output": (model.d_model, width),
        "inner": (model.d_inner, model.d_model),
        "outer": (model.d_model, model.d_inner),
    }
    for name, (outputs, inputs) in weights.items():
        x, weight, gradient = (torch.randn(shape).to(BF16) for shape in ((rows, inputs), (outputs, inputs), (rows, outputs)))
        yield f"{name}, {rows} x {inputs} x {outputs}", x, weight.t()
        yield f"{name}, gradient of input", gradient, weight
        yield f"{name}, gradient of weight", gradient.t(), x
