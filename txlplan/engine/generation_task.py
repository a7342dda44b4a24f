"""The task `generate`: prompts in, text out, shown while it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from time import perf_counter

from txlplan.data import Vocabulary
from txlplan.engine.backend import Backend, computing
from txlplan.engine.events import Event, Generated, Noted, Step, Streamed
from txlplan.engine.generation import Generator
from txlplan.engine.text_stream import TextStream
from txlplan.errors import InputError
from txlplan.nn import TransformerXL
from txlplan.plan_file import PlanFile

DEFAULT_NEW_TOKENS = 256
"""Generated where workload.tokens does not say."""


def prompts_of(plan_file: PlanFile, vocabulary: Vocabulary) -> list[list[int]]:
    """Token ids of each row: every prompt as often as micro_batch is a multiple of their number.

    Raises InputError for a prompt without tokens, and for a micro_batch that is no such multiple.
    """
    texts, rows = plan_file.sampling.prompts, plan_file.plan.micro_batch
    if rows % len(texts):
        raise InputError(f"plan.micro_batch = {rows} rows are no multiple of the {len(texts)} prompts")
    encoded = [[int(token) for token in vocabulary.encode(text)] for text in texts]
    for text, tokens in zip(texts, encoded, strict=True):
        if not tokens:
            raise InputError(f"the prompt {text!r} encodes to no token", hint="give a prompt")
    return [tokens for tokens in encoded for _ in range(rows // len(texts))]


def generate_text(
    plan_file: PlanFile,
    model: TransformerXL,
    backend: Backend,
    vocabulary: Vocabulary,
    *,
    steps: int,
    emit: Callable[[Event], None],
    stopping: Callable[[], bool],
) -> bool:
    """Emit a step and what can be shown after each of at most `steps` tokens a row, then each row's whole text.

    Ends early once every row has come to a stop string. False where `stopping` ended it.
    """
    prompts = prompts_of(plan_file, vocabulary)
    rows = [TextStream(vocabulary, plan_file.sampling.stop) for _ in prompts]
    new = generator(plan_file, model, backend, emit).tokens(prompts)
    step = 0
    while step < steps and not all(row.is_stopped for row in rows):
        if stopping():
            break
        start_s = perf_counter()
        column = next(new).tolist()
        step += 1
        emit(Step(step=step, step_s=perf_counter() - start_s, tokens=len(rows)))
        for number, (row, token) in enumerate(zip(rows, column, strict=True)):
            _show(emit, number, row.push(token))
    for number, row in enumerate(rows):
        _show(emit, number, row.finish())
        emit(Generated(text=row.text))
    return step == steps or all(row.is_stopped for row in rows)


def generator(plan_file: PlanFile, model: TransformerXL, backend: Backend, emit: Callable[[Event], None]) -> Generator:
    """Compiled where the plan says so and this machine can; where it cannot, the plain one, and a note that says why."""
    rows, seed = plan_file.plan.micro_batch, plan_file.run.seed
    if plan_file.plan.compile:
        emit(Noted(text=_COMPILING))
        try:
            return Generator(model, backend, plan_file.sampling, rows=rows, seed=seed, compiled=True)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            needed = "" if backend.device.type == "cuda" else " (a C++ compiler is needed: g++, or what CXX names)"
            emit(Noted(text=f"the step could not be compiled, and runs uncompiled: {reason}{needed}"))
            backend = computing(backend, dataclasses.replace(plan_file.plan, compile=False), "generate")
    return Generator(model, backend, plan_file.sampling, rows=rows, seed=seed)


_COMPILING = "compiling the step of a token: some ten seconds, the first time (longer on a GPU and with many rows)"


def _show(emit: Callable[[Event], None], row: int, text: str) -> None:
    if text:
        emit(Streamed(row=row, text=text))
