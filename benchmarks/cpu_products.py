"""How well a probe's products tell of others on this CPU: products of random layers, timed as the probe times its own, against
what is interpolated between the probe's.

    python benchmarks/cpu_products.py layers --dtype fp32
    python benchmarks/cpu_products.py tokens

And what products of tokens take within tokens, beside what they take one by one and how long their weights take to be read:

    python benchmarks/cpu_products.py within

And how long oneDNN takes for products of random sizes in fp32, over how long torch's own do: where those of many columns are to
be oneDNN's (`txlplan.nn._wide_products`), and where they are not:

    python benchmarks/cpu_products.py wide

All is timed in rounds; the median counts. The last line is one JSON document.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median, quantiles
from typing import Annotated, Any

import numpy as np
import torch
import typer

from txlplan.cost._products import interpolated
from txlplan.detection import _product_cases as cases
from txlplan.detection._case import Case
from txlplan.detection._product_cases import between
from txlplan.detection._reading import READ_BYTES, reading
from txlplan.detection._timing import nothing, time_call
from txlplan.engine.heap import keep_freed_memory
from txlplan.hardware import EfficiencyPoint
from txlplan.model import ModelConfig
from txlplan.nn import Inference, TransformerXL, _products
from txlplan.nn._suited_products import leave_to_torch, suit_products
from txlplan.nn._wide_products import is_wide

Shape = tuple[int, int, int]
_MOST_FLOPS = 3e9
_MODELS = ((1, 11, 576, 1152), (5, 11, 640, 2560), (13, 4, 768, 2304))
"""Rows, layers, width, inner width: of 117, 216 and 94 MB of weights."""
_TOKENS = 5
_LEAST_FLOPS = 4e6
_ROWS = (32, 48, 64, 100, 128, 200, 256, 400, 512, 600, 800, 1024, 1500, 2048, 4096)
_WIDTHS = (64, 128, 205, 256, 410, 512, 640, 800, 1024, 1230, 1536, 2003, 2048, 2100, 3072, 4096, 5000)
app = typer.Typer(add_completion=False)
Rounds = Annotated[int, typer.Option(help="Of all products.")]


@app.command()
def layers(dtype: str = "fp32", rounds: Rounds = 6, count: int = 60, seed: int = 5) -> None:
    """Forward, and both gradients."""
    _set_up(dtype)
    shapes = [*cases._LARGE, *_random(seed, count, lambda source: source.choice(range(32, 257, 32)) * source.randint(1, 10))]
    of_phase = {"forward": cases.forward, "backward": cases.backward, "weights": cases.weight_gradient}
    every = [(phase, shape, make(*shape, dtype, "cpu")) for phase, make in of_phase.items() for shape in shapes]
    seconds = _timed([case for *_, case in every], rounds)
    found: dict[str, Any] = {}
    for phase in of_phase:
        mine = {shape: s for (each, shape, _), s in zip(every, seconds, strict=True) if each == phase}
        found[phase] = _scored(f"{dtype} {phase}", mine, len(cases._LARGE))
    print(json.dumps(found))


@app.command()
def tokens(rounds: Rounds = 6, count: int = 60, seed: int = 5) -> None:
    """Of 1 to 16 rows in fp32."""
    _set_up("fp32", few_rows=True)
    shapes = [*cases._FEW, *_random(seed, count, lambda source: source.randint(1, 16))]
    seconds = _timed([cases.few_rows(*shape, "fp32", "cpu") for shape in shapes], rounds, between())
    print(json.dumps(_scored("tokens", dict(zip(shapes, seconds, strict=True)), len(cases._FEW))))


@app.command()
def within(rounds: Rounds = 8) -> None:
    """Tokens of models whose weights no cache holds."""
    _set_up("fp32", few_rows=True)
    rows_found = []
    for rows, n_layer, width, inner in _MODELS:
        model = ModelConfig(
            id="benchmark",
            n_layer=n_layer,
            d_model=width,
            n_head=width // 64,
            d_head=64,
            d_inner=inner,
            vocab_size=256,
            tgt_len=64,
            mem_len=160,
        )
        rows_found.append(_within(model, rows, rounds))
        print("  ".join(f"{name} {value:.4g}" for name, value in rows_found[-1].items()))
    print(json.dumps(rows_found))


@app.command()
def wide(rounds: Rounds = 5, count: int = 400, seed: int = 5) -> None:
    """Products y = x Wᵀ, and of both gradients, whichever would have these columns."""
    _set_up("fp32")
    leave_to_torch()
    source, found = random.Random(seed), dict[str, list[float]]()
    while sum(map(len, found.values())) < count:
        m, n, k, lies = source.choice(_ROWS), source.choice(_WIDTHS), source.choice(_WIDTHS), source.choice(["nt", "nn", "tn"])
        if _LEAST_FLOPS <= 2.0 * m * n * k <= 2 * _MOST_FLOPS:
            group = "oneDNN's" if is_wide(m, n, as_linear=lies == "nt") else "torch's"
            found.setdefault(f"{group}, {lies}", []).append(_over_torchs(m, n, k, lies, rounds))
    told = {}
    for name, ratios in sorted(found.items()):
        low, *_, high = quantiles(ratios, n=20, method="inclusive") if len(ratios) > 1 else 2 * ratios
        told[name] = {"products": len(ratios), "median": median(ratios), "5 %": low, "95 %": high}
        print(name, "  ".join(f"{what} {value:.3g}" for what, value in told[name].items()))
    print(json.dumps(told))


_TURNS = 4
"""Products of other operands, one after another."""


def _over_torchs(m: int, n: int, k: int, lies: str, rounds: int) -> float:
    """oneDNN's time over torch's, `rounds` times one after the other."""
    lefts = [torch.randn(k, m).t() if lies == "tn" else torch.randn(m, k) for _ in range(_TURNS)]
    rights = [torch.randn(n, k).t() if lies == "nt" else torch.randn(k, n) for _ in range(_TURNS)]

    def onednns() -> None:
        for left, right in zip(lefts, rights, strict=True):
            torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")

    def torchs() -> None:
        for left, right in zip(lefts, rights, strict=True):
            torch.mm(left, right)

    onednns()
    torchs()
    return median(time_call(onednns, nothing) / time_call(torchs, nothing) for _ in range(rounds))


def _within(model: ModelConfig, rows: int, rounds: int) -> dict[str, float]:
    width = model.n_head * model.d_head
    shapes = [
        (3 * width, model.d_model),
        (model.d_model, width),
        (model.d_inner, model.d_model),
        (model.d_model, model.d_inner),
    ]
    reader = Inference(TransformerXL(model), rows=rows)
    ring, word = reader.ring(rows, longest=1), torch.zeros(rows, 1, dtype=torch.int64)
    ring.filled = [model.mem_len] * rows
    alone = [cases.few_rows(rows, n, k, "fp32", "cpu") for n, k in shapes]
    weights = 4.0 * model.n_layer * sum(n * k for n, k in shapes)
    read, others, works = reading(READ_BYTES[-1]), between(), [case.build() for case in alone]
    took: dict[str, list[float]] = {"within": [], "alone": [], "read": []}
    for _ in range(rounds):
        with _watched() as seconds:
            for _ in range(_TOKENS):
                reader.read(word, ring)
        took["within"].append(sum(seconds) / _TOKENS)
        others_s = time_call(others, nothing)
        each_s = [time_call(work, nothing) / case.operations - others_s for work, case in zip(works, alone, strict=True)]
        took["alone"].append(model.n_layer * sum(each_s))
        took["read"].append(weights * time_call(read, nothing) / READ_BYTES[-1])
    told = {f"{name} ms": 1e3 * median(seconds) for name, seconds in took.items()}
    return {"rows": rows, "layers": model.n_layer, "width": model.d_model, "MB": weights / 1e6} | told


@contextlib.contextmanager
def _watched() -> Iterator[list[float]]:
    """Seconds of each product of a token while it lasts."""
    kinds = (_products.BlockedProduct, _products.PackedProduct, _products.PlainProduct)
    before, seconds = {kind: kind.__call__ for kind in kinds}, list[float]()

    def timing(call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def timed(product: object, x: torch.Tensor) -> torch.Tensor:
            start_s = time.perf_counter()
            out = call(product, x)
            seconds.append(time.perf_counter() - start_s)
            return out

        return timed

    for kind, call in before.items():
        kind.__call__ = timing(call)  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        for kind, call in before.items():
            kind.__call__ = call  # type: ignore[method-assign]


def _set_up(dtype: str, *, few_rows: bool = False) -> None:
    keep_freed_memory()
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_grad_enabled(False)
    suit_products(bf16=dtype == "bf16", few_rows=few_rows)


def _random(seed: int, count: int, rows: Callable[[random.Random], int]) -> list[Shape]:
    """Products of layers 128 to 768 wide, and of words."""
    source, found = random.Random(seed), list[Shape]()
    while len(found) < count:
        width, m = 64 * source.randint(2, 12), rows(source)
        wider = width * source.choice([1, 2, 3, 4])
        shape = source.choice([(m, wider, width), (m, width, wider), (m, source.choice([256, 2000, 5000, 8000]), width)])
        if 2.0 * shape[0] * shape[1] * shape[2] <= _MOST_FLOPS:
            found.append(shape)
    return found


def _timed(every: Sequence[Case], rounds: int, others: Callable[[], None] | None = None) -> list[float]:
    """Seconds of one operation of each; less those of the others that follow it."""
    times: list[list[float]] = [[] for _ in every]
    for _ in range(rounds):
        beside_s = time_call(others, nothing) if others else 0.0
        for case, seconds in zip(every, times, strict=True):
            work = case.build()
            work()
            seconds.append(time_call(work, nothing) / case.operations - beside_s)
    return [median(seconds) for seconds in times]


def _scored(name: str, seconds: dict[Shape, float], probed: int) -> dict[str, float]:
    """By the first `probed`, the others."""
    shapes = np.array(list(seconds), dtype=float)
    took_s, work = np.array(list(seconds.values())), 2.0 * shapes.prod(axis=1)
    rate = work / took_s
    points = tuple(
        EfficiencyPoint(kind="gemm", dtype="fp32", work=w, utilisation=r / rate.max(), m=m, n=n, k=k)
        for (m, n, k), w, r in zip(list(seconds)[:probed], work, rate, strict=False)
    )
    m, n, k = shapes[probed:].T
    predicted_s = work[probed:] / (interpolated(points, work[probed:], m, n, k) * rate.max())
    errors = predicted_s / took_s[probed:] - 1
    found = {"products": errors.size, "mean error": fmean(abs(errors)), "bias": fmean(errors), "largest": abs(errors).max()}
    print(name, "  ".join(f"{what} {value:.3g}" for what, value in found.items()))
    return {what: float(value) for what, value in found.items()}


if __name__ == "__main__":
    app()
