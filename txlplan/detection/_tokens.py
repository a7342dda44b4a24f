"""Whole tokens of a few small models on a CPU, and what they take beyond their operations.

Operations timed one by one find their code, and what torch keeps of them, in a core's caches, from where the weights and keys
that a layer reads drive it in a token. So what an operation of a token costs the host is taken from what is left of whole
tokens, of layers of few weights and of many.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from txlplan.choices import Precision
from txlplan.cost import Settings, build, estimate
from txlplan.cost._time import eager_dispatch_s, layer_bytes
from txlplan.engine.sampling import choose
from txlplan.hardware import Cluster, StackProfile, TokenHost
from txlplan.model import ModelConfig
from txlplan.nn import Inference, TransformerXL
from txlplan.nn._suited_products import suit_products
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What a token of each row took."""

    model: ModelConfig
    precision: Precision
    threads: int
    seconds: float

    @classmethod
    def middle(cls, several: Sequence[Token]) -> Token:
        """One of the same, with their median."""
        return replace(several[0], seconds=statistics.median(each.seconds for each in several))


def token_times(precisions: Iterable[Precision], threads: int) -> Iterator[Token]:
    """Of each model in each precision, with a full memory."""
    torch.set_num_threads(threads)
    for precision in precisions:
        suit_products(bf16=precision == "bf16")
        for width in _WIDTHS:
            model = _model(width)
            yield Token(model=model, precision=precision, threads=threads, seconds=_token_s(model, precision))


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


def _token_s(model: ModelConfig, precision: Precision) -> float:
    """The mean of some, and their share of one slide of the memory, which is timed apart: however few they are, it counts as
    in a long run. The caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        module = TransformerXL(model)
    reader = Inference(module, rows=_ROWS, dtype=torch.bfloat16 if precision == "bf16" else None)
    ring, random, sampling = reader.ring(_ROWS, longest=1), torch.Generator(), Sampling()
    ring.filled = [model.mem_len] * _ROWS
    words = torch.zeros(_ROWS, 1, dtype=torch.int64)

    def token() -> None:
        logarithms = reader.log_probabilities(reader.read(words, ring)[:, -1]).float()
        choose(logarithms, sampling, random).tolist()

    for _ in range(_WARM_UP):
        token()
    done, start_s = 0, time.perf_counter()
    while done < _REPEATS and time.perf_counter() < start_s + _LONGEST_S:
        token()
        done += 1
    token_s = (time.perf_counter() - start_s) / done
    ring.advance(_REPEATS - done)
    start_s = time.perf_counter()
    ring.make_room(1)
    return token_s + (time.perf_counter() - start_s) / _UNTIL_SLIDE


def token_host(cluster: Cluster, stack: StackProfile, tokens: Iterable[Token]) -> tuple[TokenHost, ...]:
    """The host's time for one operation of each, but for those in a precision whose products were not reached in time."""
    return tuple(_host(cluster, stack, token) for token in tokens if cluster.device.peak(token.precision))


def _host(cluster: Cluster, stack: StackProfile, token: Token) -> TokenHost:
    workload = Workload(model=token.model, task="generate")
    plan = Plan(micro_batch=_ROWS, precision=token.precision, threads=token.threads)
    least_s = _LEAST_SHARE * eager_dispatch_s(stack, "forward", reading=True)
    without_s, with_s = (_step_s(cluster, stack, workload, plan, op_s) for op_s in (0.0, 1.0))
    stream = build(Settings.of(workload, cluster.device, stack, plan), np.array([float(_ROWS)]))
    op_s = max(least_s, (token.seconds - without_s) / (with_s - without_s))
    weights = round(float(layer_bytes(stream)[0]) / token.threads)
    return TokenHost(dtype=token.precision, layer_bytes=weights, op_s=float(f"{op_s:.4g}"))


def _step_s(cluster: Cluster, stack: StackProfile, workload: Workload, plan: Plan, op_s: float) -> float:
    """Predicted where the host takes so long for an operation."""
    asked = replace(stack, host_reading_op_s=op_s, token_host=())
    return float(estimate(workload, cluster, asked, [plan]).step_s[0])
