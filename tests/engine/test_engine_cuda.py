"""The worker on a GPU: every task in every precision, and training that goes on from a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from txlplan.engine.events import Evaluated, Generated, Noted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here")

GPU = {"device": "cuda"}
PLAN: dict[str, Any] = {"micro_batch": 4, "threads": None}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "adafactor"])
def test_every_precision_and_optimizer_learns(plan_of, work, precision, optimizer):
    ran = work(plan_of(steps=40, plan=PLAN | {"precision": precision}, optimization={"optimizer": optimizer}, run=GPU))
    assert ran.finished.outcome == "ok", ran.finished.message
    assert ran.losses[-1] < 0.8 * ran.losses[0]
    assert ran.finished.peak_memory_bytes > ran.finished.allocator_peak_bytes > 0


@pytest.mark.parametrize("changes", [{"accumulation": 2}, {"activation_checkpointing": "full"}, {"attention": "reference"}])
def test_a_plan_s_settings_change_no_loss(plan_of, work, tmp_path, changes):
    same = {"micro_batch": 2, "accumulation": 2} if "accumulation" in changes else {}
    plain = work(plan_of(plan=PLAN, run=GPU))
    other = plan_of(plan=PLAN | changes | same, run=GPU | {"directory": str(tmp_path / "other")})
    assert work(other).losses == pytest.approx(plain.losses, rel=1e-3)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(plan_of, work, tmp_path):
    options = {"model": {"dropout": 0.1}, "plan": PLAN}
    whole = work(plan_of(run=GPU | {"deterministic": True}, **options))
    half = plan_of(run=GPU | {"deterministic": True, "directory": str(tmp_path / "half")}, **options)
    first, second = work(half, "--steps", "4"), work(half, "--resume")
    assert first.losses + second.losses == pytest.approx(whole.losses, rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_was_trained_is_scored_and_continued(plan_of, work, tmp_path, precision):
    trained = work(plan_of(plan=PLAN, run=GPU))
    after = {"checkpoint": str(trained.directory), **GPU}
    plan = PLAN | {"precision": precision}
    asked = plan_of(
        workload={"task": "score", "tokens": None}, plan=plan, run=after | {"directory": str(tmp_path / "scored")}, steps=None
    )
    scored = work(dataclasses.replace(asked, data=dataclasses.replace(asked.data, split="valid")))
    assert scored.finished.outcome == "ok", scored.finished.message
    assert 0 < scored.of(Evaluated)[0].loss < 6
    for compiled in (False, True):
        place = {"directory": str(tmp_path / f"text-{compiled}")}
        text = work(
            plan_of(
                workload={"task": "generate"},
                steps=12,
                plan=plan | {"micro_batch": 2, "compile": compiled},
                sampling={"prompt": "the state", "temperature": 0.8, "top_k": 20},
                run=after | place,
            )
        )
        assert text.finished.outcome == "ok", text.finished.message
        assert not text.of(Noted), text.of(Noted)
        assert all(each.text for each in text.of(Generated))


def test_what_does_not_fit_is_out_of_memory(plan_of, work):
    ran = work(plan_of(model={"mem_len": 400_000_000}, plan=PLAN, run=GPU))
    assert (ran.exit_code, ran.finished.outcome) == (4, "oom"), ran.finished.message
