"""Prompts that no worker need be started for."""

from __future__ import annotations

from pathlib import Path

from txlplan.data import Vocabulary, open_dataset
from txlplan.errors import InputError
from txlplan.model import ModelConfig
from txlplan.plan_file import PlanFile, Sampling


def check_prompts(plan_file: PlanFile) -> None:
    """Raise InputError for prompts that the plan's model cannot read, or that its rows cannot be shared out to."""
    rows, prompts = plan_file.plan.micro_batch, plan_file.sampling.prompts
    if rows % len(prompts):
        raise InputError(f"plan.micro_batch = {rows} rows are no multiple of the {len(prompts)} prompts")
    vocabulary = open_dataset(Path(plan_file.data.directory)).vocabulary
    longest_prompt(plan_file.sampling, plan_file.workload.model, vocabulary)


def longest_prompt(sampling: Sampling, model: ModelConfig, vocabulary: Vocabulary) -> int:
    """Tokens of the longest prompt.

    Raises InputError for one that is not UTF-8, that has no token, or that is longer than what the model remembers.
    """
    return max(_length(text, model, vocabulary) for text in sampling.prompts)


def _length(text: str, model: ModelConfig, vocabulary: Vocabulary) -> int:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt is not valid UTF-8 at character {error.start}", hint="write it in UTF-8, as your terminal does"
        ) from None
    tokens = len(vocabulary.encode(text))
    if tokens == 0:
        raise InputError(f"the prompt {text!r} encodes to no token", hint="give at least one with --prompt")
    reach = max(model.mem_len, model.tgt_len)
    if tokens > reach:
        raise InputError(
            f"a prompt of {tokens} tokens is longer than what the model {model.id!r} remembers ({reach}): "
            "it would have forgotten the beginning",
            hint="shorten it, or name a model file with a longer mem_len: --model FILE",
        )
    return tokens
