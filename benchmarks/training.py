"""Training steps against our reference path, Hugging Face's transfo-xl and x-transformers, in pairs.

    python benchmarks/training.py speed enwik8 --against hugging-face      time, memory, share of the machine's products
    python benchmarks/training.py speed enwik8 --against hugging-face --ours compiled    with attention in C++
    python benchmarks/training.py speed tiny --against x-transformers --bf16
    python benchmarks/training.py speed tiny --against trainer             the step of `txlplan run` against the bare one
    python benchmarks/training.py share enwik8 --ours compiled             a step's FLOPs as products alone, and the step
    python benchmarks/training.py dropout tiny                             what dropout of 0.1 costs
    python benchmarks/training.py curves                    bits per character after the same steps, by path and seed
    python benchmarks/training.py rates tiny --steps 200    the learning rate that suits each side of a duel
    python benchmarks/training.py duel tiny                 ten minutes of learning, beside x-transformers, in turns
    python benchmarks/training.py products                  FLOP/s of matrix products in fp32 and bf16
    python benchmarks/training.py shapes enwik8             a layer's products in bf16, by torch and by tiles of our own
    python benchmarks/training.py dispatch --threads 1      host time of an operation of a tile of scores, and of the others
    python benchmarks/training.py speed wt103 --against hugging-face --device cuda --bf16 --rows 32 --ours trainer

A step is forward, backward and Adam on random tokens, with the recurrent memory carried on and dropout 0. Each side is a
process of its own, which waits while the other works; --python-of-other names another interpreter for it, such as one with
another version of transformers. `curves`, `rates` and `duel` keep what is done in --directory and go on from it. Each
benchmark prints what it found, and with --json FILE writes it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _contenders import COMPILED_TRAINER, CONFIGS, CONTENDERS, ROWS, TRAINER, attention_of, stepping
from _curves import curves
from _duel import duel, rates
from _pairs import LEAST_PAIRS, ratio
from _shapes import shapes
from _side import NAME, Side

from txlplan.cost._op_stream import Phase
from txlplan.detection._host import operations, training_s
from txlplan.engine.trace import trace
from txlplan.nn._suited_products import leave_to_torch, suit_products
from txlplan.plan_file import Plan
from txlplan.workload import Workload

BF16 = torch.bfloat16
Row = dict[str, Any]


def main() -> None:
    """Run one benchmark, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=["speed", "share", "dropout", "curves", "rates", "duel", "products", "shapes", "dispatch", "side"]
    )
    parser.add_argument("config", nargs="?", choices=sorted(CONFIGS), default="tiny")
    parser.add_argument("--against", choices=sorted({TRAINER, *CONTENDERS} - {"fast"}), default="reference")
    parser.add_argument(
        "--bf16", action="store_true", help="ours in bf16; x-transformers and the trainer too, the others in fp32"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="on CUDA, --bf16 is for both sides")
    parser.add_argument("--rows", type=int, help="sequences of a step")
    parser.add_argument(
        "--ours",
        choices=["fast", "compiled", TRAINER, COMPILED_TRAINER],
        default="fast",
        help="the bare module, or the step of `txlplan run`",
    )
    parser.add_argument(
        "--of",
        choices=sorted(PRODUCTS),
        default="own",
        help="products that `share` is of: those that we train with, or torch's",
    )
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--python-of-other", default=sys.executable)
    parser.add_argument("--text", type=Path, help="to learn; else the State of the Union addresses (extra `demo`)")
    parser.add_argument("--directory", type=Path, default=Path("artifacts/learning"), help="where learning goes on from")
    parser.add_argument("--steps", type=int, default=500, help="of `curves` and `rates`")
    parser.add_argument("--seconds", type=float, default=600.0, help="of learning for each side of `duel`")
    parser.add_argument("--for", type=float, default=math.inf, help="seconds that this call of `duel` may take")
    parser.add_argument("--seeds", type=int, default=3, help="of `curves`")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_flush_denormal(True)  # for all sides, as a worker does, before there are threads
    torch.set_num_threads(options.threads)
    if options.device != "cpu":  # a mode that sees every call, which costs time and cannot be compiled
        torch.set_default_device(options.device)
    options.rows = options.rows or ROWS[options.config]
    learning = {"curves": curves, "rates": rates, "duel": duel}
    of_products = {"products": products, "share": share, "shapes": shapes}
    benchmarks = {"speed": speed, "dropout": dropout, **learning, **of_products, "dispatch": dispatch, "side": _work}
    rows = benchmarks[options.what](options)
    for row in rows:
        print("  ".join(f"{name} {_shown(value)}" for name, value in row.items()))
    if options.json:
        device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
        machine = {"device": device, "threads": options.threads, "torch": torch.__version__}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def speed(options: argparse.Namespace) -> list[Row]:
    """Ours against another."""
    both = options.bf16 and (options.device == "cuda" or options.against in ("x-transformers", TRAINER))
    with (
        _side(options, options.against, bf16=both) as other,
        _side(options, options.ours, bf16=options.bf16) as ours,
    ):
        found = ratio(other.step, ours.step, pairs=options.pairs)
        peaks = {"their peak MiB": other.peak_bytes() >> 20, "our peak MiB": ours.peak_bytes() >> 20}
    suit_products(bf16=options.bf16)
    of_peak = _step_flops(options) / found.b_s / _best_product_flops_per_s(_dtype(options))
    what = f"{options.config} {'bf16' if options.bf16 else 'fp32'} of {options.rows} rows"
    return [{"what": what, "ours": ours.name, "over": other.name, **asdict(found), **peaks, "share of product peak": of_peak}]


def share(options: argparse.Namespace) -> list[Row]:
    """How long as many FLOPs as a step's take as products of the best size, over how long the step takes."""
    products = PRODUCTS[options.of]
    with _side(options, products, bf16=options.bf16) as alone, _side(options, options.ours, bf16=options.bf16) as ours:
        found = ratio(alone.step, ours.step, pairs=options.pairs)
    rate = _step_flops(options) / found.a_s / 1e9
    what = f"{options.config} {'bf16' if options.bf16 else 'fp32'} of {options.rows} rows, share of {products} alone"
    return [{"what": what, "ours": ours.name, **asdict(found), "products GFLOP/s": rate}]


PRODUCTS = {"own": "products", "torch": "torch's products"}
"""Sides, by whose products those are."""


def _products_alone(options: argparse.Namespace, *, own: bool) -> Callable[[], float]:
    """Products of the size that is fastest, until they are as many FLOPs as a step's; gives the last call's GFLOP/s."""
    _suit(bf16=options.bf16 and own)
    calls = {size: _product(*size, _dtype(options)) for size in _PRODUCTS}

    def median_rate(size: tuple[int, int, int]) -> float:
        return median(_rate(size, calls[size]) for _ in range(50))

    best = max(calls, key=median_rate)
    times = round(_step_flops(options) / _flops(best))
    return lambda: [_rate(best, calls[best]) for _ in range(times)][-1] / 1e9


def _suit(*, bf16: bool) -> None:
    """Products of bf16 as txlplan has them, or all as torch does."""
    if bf16:
        suit_products(bf16=True)
    else:
        leave_to_torch()


def _dtype(options: argparse.Namespace) -> torch.dtype:
    return BF16 if options.bf16 else torch.float32


def _step_flops(options: argparse.Namespace) -> float:
    """That one of our steps executes."""
    with torch.device("cpu"):
        path = attention_of(options.ours)
        plan = Plan(micro_batch=options.rows, precision="bf16" if options.bf16 else "fp32", attention=path)
        flops = trace(Workload(model=CONFIGS[options.config]), plan)
    return float(flops.forward_flops + flops.backward_flops)


def dropout(options: argparse.Namespace) -> list[Row]:
    """Ours with dropout of 0.1 against ours without."""
    with (
        _side(options, options.ours, bf16=options.bf16, dropout=0.1) as dropping,
        _side(options, options.ours, bf16=options.bf16) as whole,
    ):
        found = ratio(dropping.step, whole.step, pairs=options.pairs)
    return [{"what": f"{options.config} without dropout", "over": "dropout 0.1", **asdict(found)}]


def products(_: argparse.Namespace) -> list[Row]:
    """The best rate of matrix products by dtype, torch's own and as txlplan trains."""
    found = {}
    for name, dtype, ours in (("fp32", torch.float32, False), ("bf16", BF16, False), ("bf16 in txlplan", BF16, True)):
        _suit(bf16=ours)
        found[name] = _best_product_flops_per_s(dtype)
    return [{"what": name, "GFLOP/s": rate / 1e9} for name, rate in found.items()]


def dispatch(options: argparse.Namespace) -> list[Row]:
    """By a model so small that nothing else takes time: more rows are more tiles, and no more of the other operations."""
    few, many = 1, 33
    counted = {rows: operations("train", "fast", rows=rows) for rows in (few, many)}
    pairs = [[training_s("cpu", lambda: None, rows=rows) for rows in (few, many)] for _ in range(options.pairs)]
    found: list[Row] = []
    for number, phase in enumerate(PHASES):
        launches = [float(each.total(each.launches, phase)[0]) for each in counted.values()]
        in_tiles = (launches[1] - launches[0]) / (many - few)
        tile_s = [(more[number] - less[number]) / (launches[1] - launches[0]) for less, more in pairs]
        other_s = [
            (less[number] - in_tiles * one_s) / (launches[0] - in_tiles) for one_s, (less, _) in zip(tile_s, pairs, strict=True)
        ]
        share = median(one_s / other for one_s, other in zip(tile_s, other_s, strict=True))
        found.append({"what": phase, "of a tile us": 1e6 * median(tile_s), "other us": 1e6 * median(other_s), "share": share})
    return found


PHASES: tuple[Phase, ...] = ("forward", "backward")


def _side(options: argparse.Namespace, name: str, *, bf16: bool, dropout: float | None = None) -> Side:
    arguments = ["side", options.config, "--threads", str(options.threads), *(["--bf16"] if bf16 else [])]
    arguments += ["--device", options.device, "--rows", str(options.rows), "--ours", options.ours]
    arguments += ["--dropout", str(options.dropout if dropout is None else dropout)]
    python = options.python_of_other if name == options.against else sys.executable
    return Side(f"{name} {'bf16' if bf16 else 'fp32'}", [python, __file__, *arguments], side=name)


def _work(options: argparse.Namespace) -> list[Row]:
    """The other end of a Side: steps and memory, as they are asked for."""
    from txlplan.engine import footprint

    torch.manual_seed(1)
    name, config = os.environ[NAME], replace(CONFIGS[options.config], dropout=options.dropout)
    step = (
        _products_alone(options, own=name == PRODUCTS["own"])
        if name in PRODUCTS.values()
        else stepping(name, config, options.rows, options.bf16, torch.device(options.device))
    )
    for line in sys.stdin:
        answer = step() if line.strip() == "step" else footprint.peak_bytes(torch.device(options.device))
        print(answer, flush=True)
    return []


_PRODUCTS = ((1024, 1024, 1024), (2048, 1024, 512), (1024, 2048, 512))
"""Of the sizes that a training step has."""


def _best_product_flops_per_s(dtype: torch.dtype) -> float:
    """The best call within a second of each size."""
    best = 0.0
    on_gpu = torch.get_default_device().type == "cuda"
    for size in ((8192, 8192, 8192),) if on_gpu else _PRODUCTS:
        call, stop_s = _product(*size, dtype), time.perf_counter() + 1
        while time.perf_counter() < stop_s:
            best = max(best, _rate(size, call))
    return best


def _product(m: int, n: int, k: int, dtype: torch.dtype) -> Callable[[], None]:
    a, b, out = (torch.randn(shape, dtype=dtype) for shape in ((m, k), (n, k), (m, n)))

    def call() -> None:
        torch.mm(a, b.t(), out=out)
        if out.is_cuda:
            torch.cuda.synchronize()

    return call


def _flops(size: tuple[int, int, int]) -> float:
    return 2.0 * size[0] * size[1] * size[2]


def _rate(size: tuple[int, int, int], call: Callable[[], None]) -> float:
    """FLOP/s of one call."""
    start_s = time.perf_counter()
    call()
    return _flops(size) / (time.perf_counter() - start_s)


if __name__ == "__main__":
    main()
