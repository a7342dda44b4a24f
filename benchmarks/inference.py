"""Scoring and generating against Hugging Face's transfo-xl and against our reference path, with the same weights.

    python benchmarks/inference.py score        64 tokens of 4 rows at a time, 640 of memory
    python benchmarks/inference.py generate     a token at a time, 640 of memory, 1 and 8 rows
    python benchmarks/inference.py long         10,000 tokens: time a token and memory, first thousand against last
    python benchmarks/inference.py dispatch     what a layer costs beside its arithmetic, plain and compiled
    python benchmarks/inference.py sums         what the sums of compiled code take of weights in cache
    python benchmarks/inference.py spills       what products of few rows take longer with weights from 8 to 512 MiB in turn

Each prints a table, and with --json FILE writes it. The model is as large as WikiText-103 models that are trained on one
machine: 16 layers of width 410, 30,000 words. Its weights are random: neither time nor equality depends on them, but that a
greedy token leaves out further clusters of words that do not hold the likeliest. Of random weights those are nearly always all
three, of trained ones fewer: a token takes between what `generate` shows and what it shows where all words' probabilities are
computed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product as each_of
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from _contenders import CONFIGS, hugging_face
from _pairs import LEAST_PAIRS, ratio
from torch import Tensor

from txlplan.choices import AttentionPath
from txlplan.engine.compiler_cache import keep_compiled_code
from txlplan.interchange._layouts import foreign_state
from txlplan.model import models as presets
from txlplan.model._tiles import SUMMED_ROWS
from txlplan.nn import Inference, KeyValueRing, TransformerXL
from txlplan.nn._attention_code import has_attention_code
from txlplan.nn._products import Product, product
from txlplan.nn._suited_products import leave_to_torch, suit_products
from txlplan.nn._token_code import summed_product
from txlplan.nn._widened import has_fast_bf16

MODEL = replace(CONFIGS["wt103"], id="wt103-like", tgt_len=64, mem_len=640)
ROWS = 4
BF16 = torch.bfloat16
Row = dict[str, Any]


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(BENCHMARKS))
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int, default=10_000, help="of `long`")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.device != "cpu":  # a mode that sees every call, which costs time and cannot be compiled
        torch.set_default_device(options.device)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    keep_compiled_code()
    rows = BENCHMARKS[options.what](options)
    for row in rows:
        print("  ".join(f"{name} {_shown(value)}" for name, value in row.items()))
    if options.json:
        device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
        machine = {"device": device, "threads": options.threads, "torch": torch.__version__}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _theirs(model: TransformerXL) -> Any:
    """Hugging Face's module with our weights."""
    theirs = hugging_face(model.config).eval()
    theirs.load_state_dict(foreign_state(model.config, model.state_dict(), "hugging-face"), strict=False)
    memory = torch.randn(model.config.n_layer, 1, model.config.mem_len, model.config.d_model)
    tokens = torch.randint(0, model.config.vocab_size, (1, 8))
    hidden, _ = model(tokens, memory, torch.tensor(model.config.mem_len))
    expected = theirs(tokens, mems=[layer.transpose(0, 1) for layer in memory]).prediction_scores
    torch.testing.assert_close(model.log_probabilities(hidden[0]), expected[0], rtol=1e-3, atol=1e-3)
    return theirs


def full(reader: Inference, rows: int, longest: int) -> KeyValueRing:
    """A ring whose memory is full."""
    ring = reader.ring(rows, longest=longest)
    ring.filled = [reader.config.mem_len] * rows
    return ring


def score(options: argparse.Namespace) -> list[Row]:
    """Segments of ROWS rows, with a full memory that goes on."""
    model = TransformerXL(MODEL).eval()
    theirs = _theirs(model)
    tokens = torch.randint(0, MODEL.vocab_size, (ROWS, MODEL.tgt_len + 1))
    mems = [torch.zeros(MODEL.mem_len, ROWS, MODEL.d_model) for _ in range(MODEL.n_layer)]

    def theirs_scores() -> None:
        nonlocal mems
        leave_to_torch()
        mems = theirs(tokens[:, :-1], mems=mems, labels=tokens[:, :-1]).mems

    rows = []
    paths: tuple[AttentionPath, ...] = ("fast", "compiled")
    for path, dtype in each_of(paths, _read_in()):
        if path == "compiled" and not has_attention_code(torch.device("cpu"), dtype or torch.float32):
            continue
        model.use_attention(path)
        reader = Inference(model, dtype=dtype)
        ring = full(reader, ROWS, MODEL.tgt_len)

        def ours(reader: Inference = reader, ring: KeyValueRing = ring, dtype: torch.dtype | None = dtype) -> None:
            suit_products(bf16=dtype is BF16)
            reader.nll(reader.read(tokens[:, :-1], ring), tokens[:, 1:])

        units = ROWS * MODEL.tgt_len
        found = ratio(_waited(theirs_scores), _waited(ours), pairs=options.pairs, a_units=units, b_units=units)
        rows.append(_row(f"score {_name(dtype)}, attention {path}", "Hugging Face fp32", found))
    return rows


def generate(options: argparse.Namespace) -> list[Row]:
    """One row against Hugging Face, eight against the module that keeps hidden states and projects them again.

    These compute the probabilities of all words; ours, being greedy, only those that may be the largest, unless a row says so.
    """
    model = TransformerXL(MODEL).eval()
    theirs = _theirs(model)
    mems = [torch.zeros(MODEL.mem_len, 1, MODEL.d_model) for _ in range(MODEL.n_layer)]
    word = torch.randint(0, MODEL.vocab_size, (8, 1))

    def theirs_generates() -> None:
        nonlocal mems
        leave_to_torch()
        mems = theirs(word[:1], mems=mems).mems

    rows, reference = [], _reference(model, 8)
    for dtype in (None, BF16):
        for compiled, likeliest in ((False, 1), (True, 1), (True, None)):
            if not compiled and dtype not in _read_in():
                continue
            ours = _generating(model, 1, dtype, compiled, likeliest)
            found = ratio(_waited(theirs_generates), _waited(ours), pairs=options.pairs, b_units=_STEPS)
            rows.append(_row(f"generate 1 row {_name(dtype)}{_how(compiled, likeliest)}", "Hugging Face fp32", found))
        for likeliest in (1, None):
            eight = _generating(model, 8, dtype, True, likeliest)
            found = ratio(_waited(reference), _waited(eight), pairs=options.pairs, a_units=8, b_units=8 * _STEPS)
            rows.append(_row(f"generate 8 rows {_name(dtype)}{_how(True, likeliest)}", "reference fp32", found))
    return rows


def _read_in() -> tuple[torch.dtype | None, ...]:
    """What plans in fp32 and bf16 compute in where nothing is compiled: a CPU without units for bf16 in fp32 alone."""
    return (None, BF16) if torch.get_default_device().type != "cpu" or has_fast_bf16() else (None,)


def _how(compiled: bool, likeliest: int | None) -> str:
    return " compiled" * compiled + ", all words" * (likeliest is None)


def _waited(work: Callable[[], None]) -> Callable[[], None]:
    """Until the device has done it."""

    def waited() -> None:
        work()
        if torch.get_default_device().type == "cuda":
            torch.cuda.synchronize()

    return waited


_STEPS = 10
"""Of ours a call: compiled, they take about as long as one of Hugging Face's, and memory that this drove out of the caches is
read anew once in as many."""


def _generating(
    model: TransformerXL, rows: int, dtype: torch.dtype | None, compiled: bool, likeliest: int | None = 1
) -> Callable[[], None]:
    """Greedy tokens. `likeliest`: as of `Inference.log_probabilities`; 1 is enough, None computes all."""
    reader = Inference(model, rows=rows, dtype=dtype, compiled=compiled)
    ring = full(reader, rows, 1)
    words = torch.randint(0, model.config.vocab_size, (rows, 1))

    def work() -> None:
        nonlocal words
        suit_products(bf16=dtype is BF16, few_rows=True)
        for _ in range(_STEPS):
            hidden = reader.read(words, ring)[:, -1]
            words = reader.log_probabilities(hidden, likeliest=likeliest).argmax(-1, keepdim=True)

    return work


def _reference(model: TransformerXL, rows: int) -> Callable[[], None]:
    memory = model.initial_memory(rows)
    words, valid = torch.randint(0, model.config.vocab_size, (rows, 1)), torch.tensor(model.config.mem_len)

    def work() -> None:
        nonlocal memory, words
        leave_to_torch()
        hidden, memory = model(words, memory, valid)
        words = model.log_probabilities(hidden[:, -1]).argmax(-1, keepdim=True)

    return work


def long(options: argparse.Namespace) -> list[Row]:
    """A small model's tokens one after another, plain and compiled: time of a token, resident memory."""
    small = replace(presets.get("demo-bytes"), mem_len=256)
    rows, process = [], psutil.Process()
    for compiled in (False, True):
        one = _generating(TransformerXL(small).eval(), 1, None, compiled)
        one()
        step_s, resident = [], []
        for _ in range(options.tokens // _STEPS):
            start_s = time.perf_counter()
            one()
            step_s.append((time.perf_counter() - start_s) / _STEPS)
            resident.append(process.memory_info().rss)
        share = len(step_s) // 10
        rows.append(
            {
                "what": f"{options.tokens:,} tokens{' compiled' * compiled}",
                "first tenth us": 1e6 * median(step_s[:share]),
                "last tenth us": 1e6 * median(step_s[-share:]),
                "memory grown KiB": (resident[-1] - resident[share]) // 1024,
            }
        )
    return rows


def dispatch(options: argparse.Namespace) -> list[Row]:
    """Layers so narrow that a token's time is the host's."""
    narrow = replace(
        MODEL, d_model=16, n_head=2, d_head=8, d_inner=32, vocab_size=100, cutoffs=(), tie_projections=(), mem_len=16
    )
    works = [_generating(TransformerXL(narrow).eval(), 1, None, compiled) for compiled in (False, True)]
    found = ratio(works[0], works[1], pairs=options.pairs, a_units=_STEPS * narrow.n_layer, b_units=_STEPS * narrow.n_layer)
    return [_row("a layer compiled", "plain", found)]


def sums(options: argparse.Namespace) -> list[Row]:
    """What a compiled product of few rows takes of weights in cache, as FLOPs at the rate of a large fp32 product: for a weight
    that is read, for each row that it meets, and the same of an output. Without its call, which is that of a product of a
    single output."""
    square = torch.randn(1024, 1024)

    def weights(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> Callable[[], None]:
        sum_up = summed_product(torch.randn(outputs, inputs).to(dtype), torch.randn(rows, inputs))

        def work() -> None:
            for _ in range(_CALLS):
                sum_up()

        return work

    rows = []
    for dtype in (torch.float32, BF16):
        cases = [(count, inputs) for count in (1, SUMMED_ROWS) for inputs in _INPUTS]
        works = {case: [weights(dtype, *case, outputs) for outputs in (_WEIGHTS // case[1], 1)] for case in cases}
        flops: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
        for _ in range(options.pairs):
            rate = 2 * len(square) ** 3 / _seconds(lambda: square @ square)
            for case, (work, call) in works.items():
                flops[case].append((_seconds(work) - _seconds(call)) / _CALLS * rate / _WEIGHTS)
        unknowns = torch.tensor([[1.0, count, 1 / inputs, count / inputs] for count, inputs in cases])
        found = torch.linalg.solve(unknowns, torch.tensor([median(flops[case]) for case in cases]))
        names = ("FLOPs a weight", "and row", "an output", "and row of it")
        rows.append(
            {"what": f"sums {_name(dtype if dtype == BF16 else None)}", **dict(zip(names, found.tolist(), strict=True))}
        )
    return rows


_WEIGHTS, _INPUTS, _CALLS = 1 << 19, (128, 1024), 20


def spills(options: argparse.Namespace) -> list[Row]:
    """Products of few rows with the weights of so many MiB, one after another: what each byte of them takes longer than of the
    fewest, and as a share of what it does of the most, which no cache holds."""
    rows: list[Row] = []
    for dtype in (torch.float32, BF16):
        suit_products(bf16=dtype is BF16, few_rows=True)
        taken = _in_turn(dtype, options.pairs)
        longer = {mib: median(seconds) - median(taken[min(taken)]) for mib, seconds in taken.items()}
        name = f"spills {_name(None if dtype == torch.float32 else dtype)}"
        rows += [
            {"what": name, "MiB": mib, "ps a byte": 1e12 * each, "share": each / longer[max(taken)]}
            for mib, each in longer.items()
        ]
    return rows


def _in_turn(dtype: torch.dtype, rounds: int) -> dict[int, list[float]]:
    """Seconds a byte of weights, by MiB of them, one figure a round."""
    weight = torch.full((1024, 512), 0.01, dtype=dtype)
    layers = [product(weight.clone(), rows=_SPILL_ROWS) for _ in range((_SPILLS_MIB[-1] << 20) // weight.nbytes)]
    x = torch.full((_SPILL_ROWS, weight.shape[1]), 0.01, dtype=dtype)
    taken: dict[int, list[float]] = {mib: [] for mib in _SPILLS_MIB}
    for _ in range(rounds):
        for mib, seconds in taken.items():
            several, again = layers[: (mib << 20) // weight.nbytes], max(1, _SPILLS_MIB[-1] // (4 * mib))
            _run(several, x)
            seconds.append(_seconds(partial(_run, several * again, x)) / again / (mib << 20))
    return taken


def _run(layers: Sequence[Product], x: Tensor) -> None:
    for layer in layers:
        layer(x)


_SPILLS_MIB, _SPILL_ROWS = (8, 32, 64, 80, 96, 128, 192, 512), 4


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def _name(dtype: torch.dtype | None) -> str:
    return "fp32" if dtype is None else "bf16"


def _row(what: str, over: str, found: Any) -> Row:
    return {"what": what, "over": over, **asdict(found)}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "score": score,
    "generate": generate,
    "long": long,
    "dispatch": dispatch,
    "sums": sums,
    "spills": spills,
}


if __name__ == "__main__":
    main()
