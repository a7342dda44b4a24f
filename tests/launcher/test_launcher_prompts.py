"""Prompts that are refused before anything starts."""

from __future__ import annotations

import dataclasses

import pytest

from txlplan.data import ByteVocabulary, WordVocabulary
from txlplan.errors import InputError
from txlplan.launcher._prompts import longest_prompt
from txlplan.model import ModelConfig
from txlplan.plan_file import Sampling

WORDS = WordVocabulary(["<eos>", "<unk>", "a"])


def test_the_longest_counts(tiny_model: ModelConfig) -> None:
    sampling = Sampling(prompt="ab", more_prompts=("é", "abcd"))
    assert longest_prompt(sampling, tiny_model, ByteVocabulary()) == 4


@pytest.mark.parametrize("prompt", ["", "   "])
def test_an_empty_prompt_is_refused(tiny_model: ModelConfig, prompt: str) -> None:
    with pytest.raises(InputError, match="encodes to no token"):
        longest_prompt(Sampling(prompt="a", more_prompts=(prompt,)), tiny_model, WORDS)


def test_a_prompt_that_is_not_utf8_is_refused(tiny_model: ModelConfig) -> None:
    """As Python gives a program's argument of other bytes: é of Latin-1."""
    prompt = b"caf\xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(InputError, match="not valid UTF-8 at character 3"):
        longest_prompt(Sampling(prompt=prompt), tiny_model, ByteVocabulary())


def test_a_prompt_longer_than_the_memory_is_refused(tiny_model: ModelConfig) -> None:
    config = dataclasses.replace(tiny_model, mem_len=20)
    assert longest_prompt(Sampling(prompt="a" * 20), config, ByteVocabulary()) == 20
    with pytest.raises(InputError, match=r"21 tokens is longer than what the model 'tiny' remembers \(20\)"):
        longest_prompt(Sampling(prompt="a" * 21), config, ByteVocabulary())
