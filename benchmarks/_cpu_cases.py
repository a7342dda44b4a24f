"""Random configurations that a CPU can run, the same for the same seed: what `cpu_accuracy.py` measures."""

from __future__ import annotations

import random
from dataclasses import dataclass

from txlplan.benchmarks import Matrix
from txlplan.choices import Precision, Task
from txlplan.model import ModelConfig, forward_flops_per_token
from txlplan.model._tiles import SUMMED_ROWS

COMBINATIONS: tuple[tuple[Task, Precision], ...] = (
    ("train", "fp32"),
    ("score", "fp32"),
    ("generate", "fp32"),
    ("train", "bf16"),
    ("score", "bf16"),
    ("generate", "bf16"),
)
_COMPILED_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_MOST_FLOPS = 5e10
"""Of a step's forward pass; a draw beyond it is drawn again."""
_COMPILED_FLOPS = 1e8
"""The same of a token that compiled code reads: one row of 50 million weights, or eight of six."""
_HEAP_STEPS = 6
"""After which the heap of a training process has stopped growing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One configuration: a model, and what is done with it."""

    name: str
    model: ModelConfig
    task: Task
    precision: Precision
    batch: int
    compiled: bool = False

    def matrix(self, model: str, repeats: int) -> Matrix:
        """To be measured by the machinery of `txlplan bench`: in the steady state, when the memory is full."""
        memory, segment = self.model.mem_len, self.model.tgt_len
        warmup = {"train": _HEAP_STEPS, "score": -(-memory // segment) + 1, "generate": memory}[self.task]
        return Matrix(
            model=(model,),
            task=self.task,
            precision=(self.precision,),
            micro_batch=(self.batch,),
            compile=(self.compiled,),
            steps={"train": 5, "score": 8, "generate": 256 if self.compiled else 64}[self.task],
            warmup_steps=warmup,
            repeats=repeats,
        )


def drawn(seed: int, count: int, name: str) -> list[Drawn]:
    """`count` configurations, tasks and precisions in turn."""
    source = random.Random(f"{seed} {name}")
    return [_draw(source, f"{name}-{number:02d}", *COMBINATIONS[number % len(COMBINATIONS)]) for number in range(count)]


def drawn_compiled(seed: int, count: int, name: str) -> list[Drawn]:
    """The same of tokens of few rows that compiled code reads, of models that are small for it; in fp32 and bf16 in turn."""
    source = random.Random(f"{seed} {name}")
    return [
        _draw(source, f"{name}-{number:02d}", "generate", ("fp32", "bf16")[number % 2], compiled=True)
        for number in range(count)
    ]


def _draw(source: random.Random, name: str, task: Task, precision: Precision, *, compiled: bool = False) -> Drawn:
    while True:
        batch, model = source.randint(1, SUMMED_ROWS if compiled else 16), _model(source, name)
        per_token = sum(forward_flops_per_token(model, batch=batch).values())
        flops = per_token * batch * (1 if task == "generate" else model.tgt_len)
        if flops <= (_COMPILED_FLOPS if compiled else _MOST_FLOPS):
            return Drawn(name=name, model=model, task=task, precision=precision, batch=batch, compiled=compiled)


def _model(source: random.Random, name: str) -> ModelConfig:
    """Bytes, words, or words with an adaptive softmax."""
    d_head = source.choice([32, 64])
    d_model = 64 * source.randint(2, 12)
    vocab_size, cutoffs = source.choice([(256, ()), (5_000, ()), (20_000, (2_000, 10_000))])
    return ModelConfig(
        id=name,
        n_layer=source.randint(3, 16),
        d_model=d_model,
        n_head=d_model // d_head,
        d_head=d_head,
        d_inner=d_model * source.choice([2, 3, 4]),
        vocab_size=vocab_size,
        cutoffs=cutoffs,
        div_val=source.choice([1, 2]) if cutoffs else 1,
        tgt_len=32 * source.randint(1, 8),
        mem_len=32 * source.randint(1, 8),
        norm=source.choice(["post", "pre"]),
        dropout=source.choice([0.0, 0.1]),
        dropatt=source.choice([0.0, 0.1]),
    )
