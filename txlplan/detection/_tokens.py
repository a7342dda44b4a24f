"""Whole tokens of a few small models on a CPU, and what they take beyond their operations.

Operations timed one by one find their code, and what torch keeps of them, in a core's caches, from where the weights and keys
that a layer reads drive it in a token. So what an operation of a token costs the host is taken from what is left of whole
tokens, of layers of few weights and of many. Tokens that compiled code reads have fewer operations, between which all layers
are read: they are timed too, and what their threads take to wait for each other.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from txlplan.choices import Precision
from txlplan.cost import OpStream, Settings, build, estimate
from txlplan.cost._ring import LAYER_MEETINGS
from txlplan.cost._time import eager_dispatch_s, layer_bytes, summed_bytes
from txlplan.engine.event_log import EventLog
from txlplan.engine.events import Step, Streamed
from txlplan.engine.sampling import choose
from txlplan.engine.world import World
from txlplan.hardware import Cluster, CompiledTokenHost, StackProfile, TokenHost
from txlplan.model import ModelConfig
from txlplan.nn import Inference, TransformerXL
from txlplan.nn._own_code import can_compile
from txlplan.nn._suited_products import suit_products
from txlplan.nn._widened import has_fast_bf16
from txlplan.plan_file import Plan, Sampling
from txlplan.workload import Workload

_ROWS = 4
_WIDTHS = (128, 384, 640)
"""Layers of 0.3 to 7 MB of weights in bf16: much less than a core's own cache has, and much more."""
_MEMORY = 64
_WARM_UP = 2
_UNTIL_SLIDE = _MEMORY // 2
"""Tokens after which a full memory slides back, see `KeyValueRing`."""
_REPEATS = _UNTIL_SLIDE - _WARM_UP
_LONGEST_S = 0.15
"""Of the tokens of one model; on a busy machine, whose threads wait for each other, they are fewer."""
_LEAST_SHARE = 0.2
"""Of the host's time for an operation of a tiny model, whose caches nothing disturbs: whole tokens can show no less."""
_UNSURE = 0.1
"""Of the time of a token, and of the sum of its operations: a choice, about as far apart as virtual machines time the same."""
_RISE = 0.5
"""By how much an operation may cost the host more, or less, than in a narrower model: a choice."""
_DEPTHS = (1, 33)
"""Layers of two narrow models, whose times differ by what their threads take to meet."""
_MEETING_REPEATS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What a token of each row took."""

    model: ModelConfig
    precision: Precision
    threads: int
    compiled: bool = False
    seconds: float

    @classmethod
    def middle(cls, several: Sequence[Token]) -> Token:
        """One of the same, with their median."""
        return replace(several[0], seconds=statistics.median(each.seconds for each in several))


def token_times(precisions: Iterable[Precision], threads: int) -> Iterator[Token]:
    """Of each model in each precision that tokens are computed in, with a full memory; and compiled, where that is possible."""
    torch.set_num_threads(threads)
    for precision in precisions:
        suit_products(bf16=precision == "bf16", few_rows=True)
        plain = precision != "bf16" or has_fast_bf16()
        for compiled in (*([False] if plain else []), *([True] if can_compile("token") else [])):
            for width in _WIDTHS:
                model = _model(width)
                seconds = _token_s(model, precision, compiled=compiled)
                yield Token(model=model, precision=precision, threads=threads, compiled=compiled, seconds=seconds)


def _model(width: int) -> ModelConfig:
    return ModelConfig(
        id=f"probe-token-{width}",
        n_layer=3,
        d_model=width,
        n_head=width // 64,
        d_head=64,
        d_inner=2 * width,
        vocab_size=256,
        tgt_len=_MEMORY,
        mem_len=_MEMORY,
    )


def _token_s(model: ModelConfig, precision: Precision, *, compiled: bool = False) -> float:
    """The median of some, and their share of one slide of the memory, which is timed apart: however few they are, it counts as
    in a long run.

    Between them a worker tells of each, which is none of their time, but takes caches from them. The caller's random numbers
    stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        module = TransformerXL(model)
    reader = Inference(module, rows=_ROWS, dtype=torch.bfloat16 if precision == "bf16" else None, compiled=compiled)
    ring, random, sampling = reader.ring(_ROWS, longest=1), torch.Generator(), Sampling()
    ring.filled = [model.mem_len] * _ROWS
    words = torch.zeros(_ROWS, 1, dtype=torch.int64)

    def token_s(log: EventLog) -> float:
        """Seconds of one; what is told of it comes after."""
        start_s = time.perf_counter()
        logarithms = reader.log_probabilities(reader.read(words, ring)[:, -1]).float()
        choose(logarithms, sampling, random).tolist()
        seconds = time.perf_counter() - start_s
        log.emit(Step(step=1, step_s=seconds, tokens=_ROWS))
        for row in range(_ROWS):
            log.emit(Streamed(row=row, text="a"))
        return seconds

    times: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        log = EventLog(Path(directory), World())
        for _ in range(_WARM_UP):
            token_s(log)
        while len(times) < _REPEATS and sum(times) < _LONGEST_S:
            times.append(token_s(log))
    ring.advance(_REPEATS - len(times))
    start_s = time.perf_counter()
    ring.make_room(1)
    return statistics.median(times) + (time.perf_counter() - start_s) / _UNTIL_SLIDE


def meeting_s(threads: int) -> float | None:
    """What threads take to wait for each other, as in a layer of a compiled token; None where it cannot be compiled."""
    if not can_compile("token"):
        return None
    torch.set_num_threads(threads)
    few_s, many_s = map(_narrow_s, _DEPTHS)
    each_s = (many_s - few_s) / (LAYER_MEETINGS * (_DEPTHS[1] - _DEPTHS[0]))
    return float(f"{each_s:.4g}") if each_s > 0 else None


def _narrow_s(layers: int) -> float:
    """Of reading a token by so many layers that add up next to nothing: the median."""
    model = replace(_model(64), n_layer=layers, d_model=16, d_head=16, d_inner=16)
    with torch.random.fork_rng(devices=[]):
        module = TransformerXL(model)
    reader = Inference(module, rows=1, compiled=True)
    ring, word = reader.ring(1, longest=1), torch.zeros(1, 1, dtype=torch.int64)
    times = []
    for _ in range(_MEETING_REPEATS):
        start_s = time.perf_counter()
        reader.read(word, ring)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)


def token_host(cluster: Cluster, stack: StackProfile, tokens: Iterable[Token]) -> tuple[TokenHost, ...]:
    """The host's time for one operation of each, but for those in a precision whose products were not reached in time."""
    return tuple(
        TokenHost(
            dtype=token.precision,
            layer_bytes=round(float(layer_bytes(_stream(cluster, stack, token))[0]) / token.threads),
            op_s=op_s,
        )
        for token, op_s in _told(cluster, stack, tokens, compiled=False)
    )


def compiled_token_host(cluster: Cluster, stack: StackProfile, tokens: Iterable[Token]) -> tuple[CompiledTokenHost, ...]:
    """The same of compiled ones."""
    return tuple(
        CompiledTokenHost(
            dtype=token.precision,
            token_bytes=round(float(summed_bytes(_stream(cluster, stack, token))[0]) / token.threads),
            op_s=op_s,
        )
        for token, op_s in _told(cluster, stack, tokens, compiled=True)
    )


def _told(cluster: Cluster, stack: StackProfile, tokens: Iterable[Token], *, compiled: bool) -> Iterator[tuple[Token, float]]:
    """Those of one way to read, each with what an operation costs the host: what is left of it, as far as that tells more than
    the one before in its precision, of a narrower model, and before the first a tiny model."""
    tiny_s = eager_dispatch_s(stack, "forward", reading=True)
    found_s: dict[Precision, float] = {}
    for token in tokens:
        if token.compiled == compiled and cluster.device.peak(token.precision):
            expected_s = found_s.get(token.precision, tiny_s)
            found_s[token.precision] = max(_LEAST_SHARE * tiny_s, _op_s(cluster, stack, token, expected_s))
            yield token, float(f"{found_s[token.precision]:.4g}")


def _op_s(cluster: Cluster, stack: StackProfile, token: Token, expected_s: float) -> float:
    """What is left of a token, and what was expected, each counting by how sure it is."""
    workload, plan = _planned(token)
    without_s, with_s = (_step_s(cluster, stack, workload, plan, op_s) for op_s in (0.0, 1.0))
    operations = with_s - without_s
    left_s = (token.seconds - without_s) / operations
    unsure_s, more_s = _UNSURE * math.hypot(token.seconds, without_s) / operations, _RISE * expected_s
    return expected_s + (left_s - expected_s) * more_s**2 / (more_s**2 + unsure_s**2)


def _stream(cluster: Cluster, stack: StackProfile, token: Token) -> OpStream:
    workload, plan = _planned(token)
    return build(Settings.of(workload, cluster.device, stack, plan), np.array([float(_ROWS)]))


def _planned(token: Token) -> tuple[Workload, Plan]:
    plan = Plan(micro_batch=_ROWS, precision=token.precision, threads=token.threads, compile=token.compiled)
    return Workload(model=token.model, task="generate"), plan


def _step_s(cluster: Cluster, stack: StackProfile, workload: Workload, plan: Plan, op_s: float) -> float:
    """Predicted where the host takes so long for an operation."""
    asked = replace(stack, host_reading_op_s=op_s, token_host=(), compiled_token_host=())
    return float(estimate(workload, cluster, asked, [plan]).step_s[0])
