"""Attention by code of our own, against tiles of torch's products in float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from attention_cases import Case, cases, outcomes
from hypothesis import given, settings
from hypothesis import strategies as st
from narrower_registers import built_for_narrower_registers, needs_narrower_registers

from txlplan.model._tiles import VECTOR, kept_row, kept_scores, scored_blocks
from txlplan.nn import _attention_code
from txlplan.nn._attention_code import CompiledScores, has_attention_code
from txlplan.nn._own_code import can_compile
from txlplan.nn._positions import key_mask

pytestmark = pytest.mark.skipif(not can_compile("attention"), reason="needs a C++ compiler that knows OpenMP")


def assert_as_in_float64(case: Case) -> None:
    found, exact = outcomes(case, torch.float32), outcomes(case, torch.float64, tiled=True)
    for name, value in exact.items():
        torch.testing.assert_close(found[name].double(), value, rtol=2e-5, atol=2e-5 * max(1.0, float(value.abs().max())))


@settings(max_examples=60, deadline=None)
@given(case=cases(), threads=st.integers(1, 3))
def test_it_is_the_tiled_one_in_float64(case: Case, threads: int) -> None:
    torch.set_num_threads(threads)
    assert_as_in_float64(case)


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_heads_that_threads_share_are_summed_alike_each_time(threads: int) -> None:
    case = Case(B=4, T=70, M=20, H=3, K=8)
    torch.set_num_threads(threads)
    assert_as_in_float64(case)
    first, second = outcomes(case, torch.float32), outcomes(case, torch.float32)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_probabilities_that_are_computed_again_are_those_that_were_kept() -> None:
    kept = Case(B=2, T=130, M=100, H=2, K=24, dropped=True)
    first, second = outcomes(kept, torch.float32), outcomes(dataclasses.replace(kept, again=True), torch.float32)
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_narrower_registers
def test_on_a_cpu_of_narrower_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    narrower = built_for_narrower_registers("attention", tmp_path)
    monkeypatch.setattr(_attention_code, "library", lambda _: narrower)
    for K in (1, 5, 8, 20, 41, 64):
        for T, M in ((1, 0), (65, 40), (130, 200)):
            for dropped in (False, True):
                assert_as_in_float64(Case(B=2, T=T, M=M, H=3, K=K, dropped=dropped, again=K == 8))


@pytest.mark.parametrize("memory", [2, 200])
def test_a_score_that_is_no_number_is_seen(memory: int) -> None:
    keys = memory + 3
    qkv, kv, r, u = torch.randn(1, 3, 3, 1, 4), torch.randn(2, 1, memory, 1, 4), torch.randn(keys, 1, 4), torch.zeros(1, 4)
    qkv[0, 1, 0, 0, 2] = float("nan")
    scores = CompiledScores(qkv_BT3HK=qkv, k_BMHK=kv[0], v_BMHK=kv[1], r_SHK=r, u_HK=u, v_HK=u)
    mixed, _ = scores.mix(key_mask(3, memory, torch.tensor(memory), None), keep_probabilities=False)
    assert mixed.isnan().any(dim=-1).flatten().tolist() == [False, True, False]


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_left_of_numbers_that_were_none(again: bool) -> None:
    torch.set_num_threads(1)
    case = Case(B=1, T=70, M=90, H=2, K=20, dropped=True, again=again)
    before = outcomes(case, torch.float32)
    wide = torch.full((1, 200, 3, 2, 24), float("nan"))
    none, bias = wide[:, :0, 0], wide[0, 0, 0]
    larger = CompiledScores(qkv_BT3HK=wide, k_BMHK=none, v_BMHK=none, r_SHK=wide[0, :, 0], u_HK=bias, v_HK=bias)
    mixed, kept = larger.mix(key_mask(200, 0, torch.tensor(0), None), keep_probabilities=True)
    larger.gradients(mixed, kept)
    after = outcomes(case, torch.float32)
    assert all(torch.equal(before[name], after[name]) for name in before)


@given(queries=st.integers(1, 2000), mem_len=st.integers(0, 2000))
def test_blocks_are_of_all_queries_and_rows_of_whole_lines(queries: int, mem_len: int) -> None:
    found = scored_blocks(queries, mem_len)
    assert sum(rows for rows, _ in found) == queries
    assert [keys for _, keys in found] == sorted((keys for _, keys in found), reverse=True)
    assert found[0][1] == mem_len + queries
    assert found[-1][1] == mem_len + found[-1][0]
    assert all(kept_row(keys) >= keys and kept_row(keys) // VECTOR % 2 == 1 for _, keys in found)
    least = sum(rows * keys for rows, keys in found)
    assert all(kept_scores(queries, mem_len, narrow=narrow) >= least for narrow in (False, True))


@pytest.mark.parametrize("multiplies", [False, True])
def test_there_is_code_for_fp32_on_a_cpu_and_for_bf16_on_one_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    assert has_attention_code(torch.device("cpu"), torch.float32)
    assert has_attention_code(torch.device("cpu"), torch.bfloat16) == multiplies
    assert not has_attention_code(torch.device("cpu"), torch.float64)
    assert not has_attention_code(torch.device("cpu"), torch.float16)
    assert not has_attention_code(torch.device("cuda"), torch.float32)
