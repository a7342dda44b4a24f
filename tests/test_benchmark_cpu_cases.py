"""What the benchmark of predictions on a CPU measures: the same for the same seed, within what it promises."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from _cpu_cases import COMBINATIONS, drawn, drawn_compiled
from _cpu_scores import CORRECTED, MEMORY, RAW, Result

from txlplan.model import forward_flops_per_token
from txlplan.model._tiles import SUMMED_ROWS


def test_the_same_seed_draws_the_same_and_every_combination_alike():
    first, again, other = drawn(1, 24, "held-out"), drawn(1, 24, "held-out"), drawn(2, 24, "held-out")
    assert first == again
    assert [each.model for each in first] != [each.model for each in other]
    for task, precision in COMBINATIONS:
        assert sum((each.task, each.precision) == (task, precision) for each in first) == 4


def test_configurations_lie_in_the_ranges_and_are_measured_with_a_full_memory():
    for each in drawn(1, 24, "held-out") + drawn(1, 8, "fitted"):
        model = each.model
        assert 3 <= model.n_layer <= 16
        assert 128 <= model.d_model <= 768
        assert 32 <= min(model.tgt_len, model.mem_len) <= max(model.tgt_len, model.mem_len) <= 256
        assert 1 <= each.batch <= 16
        matrix = each.matrix("model.toml", 2)
        read = matrix.warmup_steps * (1 if each.task == "generate" else model.tgt_len)
        assert each.task == "train" or read >= model.mem_len


def test_compiled_configurations_are_small_and_of_few_rows():
    first = drawn_compiled(1, 6, "compiled")
    assert first == drawn_compiled(1, 6, "compiled")
    assert [each.precision for each in first] == ["fp32", "bf16"] * 3
    for each in first:
        matrix = each.matrix("model.toml", 2)
        assert (each.task, matrix.compile) == ("generate", (True,))
        assert 1 <= each.batch <= SUMMED_ROWS
        assert matrix.warmup_steps >= each.model.mem_len
        assert each.batch * sum(forward_flops_per_token(each.model, batch=each.batch).values()) <= 1e8
    assert not any(each.compiled for each in drawn(1, 24, "held-out"))


def test_errors_are_relative_and_drift_corrected():
    found = Result(
        name="a",
        task="train",
        precision="fp32",
        repeats=1,
        tokens_per_s=100.0,
        corrected_tokens_per_s=110.0,
        peak_memory_bytes=1000,
        predicted_tokens_per_s=121.0,
        predicted_peak_memory_bytes=900.0,
    )
    errors = found.errors
    assert [round(errors[name], 6) for name in (RAW, CORRECTED, MEMORY)] == [0.21, 0.1, -0.1]
