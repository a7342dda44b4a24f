"""Scoring a split: every token predicted once, with recurrent memory.

Shape suffixes: B sequences of this process, T tokens of a segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import torch

from txlplan.data import Dataset, bits_per_character
from txlplan.engine.backend import Backend
from txlplan.engine.events import Evaluated, Step
from txlplan.engine.windows import Windows
from txlplan.errors import DataError, RunFailedError
from txlplan.nn import Inference, TransformerXL
from txlplan.plan_file import PlanFile

_MAX_EXPONENT = 700.0
"""exp of more does not fit a float: a loss beyond it is shown as this perplexity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a segment of all rows took and gave."""

    step: int
    step_s: float
    tokens: int
    """Targets that count, over all processes."""
    nats: float
    """Their negative log-likelihood, summed."""


def windows(plan_file: PlanFile, backend: Backend, dataset: Dataset, split: str) -> Windows:
    """The split as the plan's batch of streams; fewer where it is too short for a whole segment in each."""
    tokens, tgt_len = dataset.tokens(split), plan_file.workload.model.tgt_len
    if len(tokens) < 2:
        raise DataError(f"split {split!r} of {plan_file.data.directory} has {len(tokens)} token(s): nothing to predict")
    size = backend.world.size
    rows = max(1, min(plan_file.plan.micro_batch, (len(tokens) - 1) // (tgt_len * size)))
    return Windows(tokens=tokens, rows=rows * size, tgt_len=tgt_len)


def score(
    model: TransformerXL,
    backend: Backend,
    split: Windows,
    *,
    max_steps: int | None = None,
    on_step: Callable[[Scored], bool] = lambda _: True,
) -> float | None:
    """Mean nats per target of at most `max_steps` segments; None when `on_step` ended it. Leaves `model` in its mode."""
    training = model.training
    model.eval()
    nats, tokens, wanted = 0.0, 0, len(split) if max_steps is None else min(max_steps, len(split))
    try:
        for scored in islice(segments(model, backend, split), wanted):
            nats, tokens = nats + scored.nats, tokens + scored.tokens
            if not on_step(scored) and scored.step < wanted:
                return None
    finally:
        model.train(training)
    if not math.isfinite(nats):
        raise RunFailedError(f"the score is {nats / tokens}: the weights are not usable")
    return nats / tokens


def segments(model: TransformerXL, backend: Backend, split: Windows) -> Iterator[Scored]:
    """Score segment after segment of this process's rows, with keys and values kept from one to the next."""
    rows = split.rows // backend.world.size
    reader = Inference(model, dtype=backend.narrow_dtype)
    ring = reader.ring(rows, longest=split.tgt_len)
    start_s = perf_counter()
    for step, arrays in enumerate(split.segments(backend.world.rank * rows, rows), start=1):
        on_cpu = [torch.from_numpy(array) for array in arrays]
        members = [each.to(backend.device) for each in reader.members(on_cpu[1])]
        inputs_BT, targets_BT, counted_BT = (each.to(backend.device) for each in on_cpu)
        nll_BT = reader.nll(reader.read(inputs_BT, ring), targets_BT, members)
        nats, tokens = backend.sums([float((nll_BT.double() * counted_BT).sum()), float(counted_BT.sum())])
        yield Scored(step=step, step_s=perf_counter() - start_s, tokens=int(tokens), nats=nats)
        start_s = perf_counter()


def evaluated(dataset: Dataset, split: str, loss: float, step: int) -> Evaluated:
    """Perplexity and bits per character of a mean loss in nats per token."""
    bits = bits_per_character(loss, dataset.split(split))
    return Evaluated(step=step, split=split, loss=loss, perplexity=math.exp(min(loss, _MAX_EXPONENT)), bits_per_character=bits)


def step_event(scored: Scored) -> Step:
    """What the supervisor is told of a segment; no loss where it is not finite, which the score as a whole then says."""
    loss = scored.nats / scored.tokens if scored.tokens and math.isfinite(scored.nats) else None
    return Step(step=scored.step, step_s=scored.step_s, tokens=scored.tokens, loss=loss)
