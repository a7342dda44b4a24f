"""What the benchmark of predictions on a CPU measures: the same for the same seed, within what it promises."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from _cpu_cases import COMBINATIONS, drawn
from _cpu_scores import CORRECTED, MEMORY, RAW, Result


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
