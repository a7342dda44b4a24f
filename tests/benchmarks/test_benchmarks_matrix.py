"""The matrix: every combination once, strictly parsed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from txlplan.benchmarks import Matrix, cases, matrix_of, read_matrix
from txlplan.benchmarks._plan_files import _full_memory
from txlplan.benchmarks._synthetic import synthetic_data
from txlplan.config import to_toml
from txlplan.data import open_dataset
from txlplan.errors import ConfigError, InputError
from txlplan.model import models as presets

TINY = "n_layer = 1\nd_model = 16\nn_head = 2\nd_head = 8\nd_inner = 32\nvocab_size = 256\ntgt_len = 8\nmem_len = 8\n"


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def test_every_combination_once(tiny: str) -> None:
    matrix = Matrix(model=(tiny,), precision=("fp32", "bf16"), micro_batch=(4, 8), accumulation=(1, 2))
    found = cases(matrix, cores=4)
    assert len({case.plan for case in found}) == 8
    assert {case.plan.threads for case in found} == {4}


def test_ways_to_compute_attention_are_an_axis(tiny: str) -> None:
    found = cases(Matrix(model=(tiny,), attention=("fast", "compiled")), cores=4)
    assert [case.plan.attention for case in found] == ["fast", "compiled"]


def test_processes_share_the_cores(tiny: str) -> None:
    found = cases(Matrix(model=(tiny,), devices=(1, 2)), cores=4)
    assert [(case.plan.data_parallel, case.plan.threads) for case in found] == [(1, 4), (2, 2)]


def test_no_threads_on_a_gpu(tiny: str) -> None:
    assert cases(Matrix(model=(tiny,)), cores=None)[0].plan.threads is None
    with pytest.raises(InputError, match="no effect on a GPU"):
        cases(Matrix(model=(tiny,), threads=(2,)), cores=None)


def test_file_round_trip(tmp_path: Path) -> None:
    matrix = Matrix(model=("demo-bytes",), micro_batch=(2, 4), threads=(1,), steps=5, data="/data")
    path = tmp_path / "bench.toml"
    path.write_text(to_toml(matrix))
    assert read_matrix(path) == matrix


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": []}, "model is an empty list"),
        ({"model": ["a"], "micro_batch": [4, 4]}, "twice"),
        ({"model": ["a"], "repeats": 0}, "repeats = 0"),
        ({"model": ["a"], "warmup_steps": -1}, "warmup_steps = -1"),
        ({"model": ["a"], "precision": ["fp31"]}, "precision"),
        ({"model": ["a"], "task": "score", "accumulation": [2]}, "no effect on task 'score'"),
        (
            {"model": ["a"], "task": "score", "attention": ["fast", "reference"]},
            r"\['reference'\] has no effect on task 'score'",
        ),
        ({"model": ["a"], "task": "generate", "attention": ["compiled"]}, r"\['compiled'\] has no effect on task 'generate'"),
    ],
)
def test_wrong_matrix_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        matrix_of(values, "test")


def test_unknown_key_offers_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('model = ["a"]\nmicrobatch = [4]\n')
    with pytest.raises(ConfigError, match="microbatch") as caught:
        read_matrix(path)
    assert "micro_batch" in str(caught.value.hint)


@pytest.mark.parametrize(("vocab_size", "mem_len"), [(256, 64), (300, 150), (256, 0)])
def test_generation_is_timed_after_a_prompt_that_fills_the_memory(vocab_size: int, mem_len: int, home: Path) -> None:
    model = dataclasses.replace(presets.get("demo-bytes"), vocab_size=vocab_size, mem_len=mem_len)
    vocabulary = open_dataset(synthetic_data(vocab_size)).vocabulary
    assert len(vocabulary.encode(_full_memory(model))) == max(1, mem_len)
