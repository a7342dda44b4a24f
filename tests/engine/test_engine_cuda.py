"""The worker on a GPU: every task in every precision, and training that goes on from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from txlplan.data import open_dataset
from txlplan.engine.backend import open_backend
from txlplan.engine.events import Evaluated, Generated, Noted
from txlplan.engine.training import Trainer
from txlplan.engine.world import World

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here")

GPU = {"device": "cuda"}
PLAN: dict[str, Any] = {"micro_batch": 4, "threads": None}


def elsewhere(plan_file, tmp_path, name, **run):
    """The same plan in another run directory."""
    return dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, directory=str(tmp_path / name), **run))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lamb", "adafactor"])
@pytest.mark.parametrize("compiled", [False, True])
def test_every_precision_and_optimizer_learns_as_on_a_cpu(plan_of, work, tmp_path, precision, optimizer, compiled):
    plan_file = plan_of(steps=20, plan=PLAN, optimization={"optimizer": optimizer, "clip_norm": 0.5})
    on_cpu = work(plan_file)
    plan = dataclasses.replace(plan_file.plan, precision=precision, compile=compiled)
    ran = work(elsewhere(dataclasses.replace(plan_file, plan=plan), tmp_path, "gpu", **GPU))
    assert ran.finished.outcome == "ok", ran.finished.message
    assert ran.losses == pytest.approx(on_cpu.losses, rel=1e-4 if precision == "fp32" else 2e-2)
    assert ran.finished.peak_memory_bytes > ran.finished.allocator_peak_bytes > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 2},
        {"accumulation": 2, "compile": True},
        {"activation_checkpointing": "full"},
        {"attention": "reference"},
        {"attention": "reference", "compile": True},
    ],
)
def test_a_plan_s_settings_change_no_loss(plan_of, work, tmp_path, changes):
    same = {"micro_batch": 2} if "accumulation" in changes else {}
    plain = work(plan_of(plan=PLAN, run=GPU))
    other = elsewhere(plan_of(plan=PLAN | changes | same, run=GPU), tmp_path, "other")
    assert work(other).losses == pytest.approx(plain.losses, rel=1e-3)


def test_a_trainer_captures_where_the_plan_says_so(plan_of):
    for compiled in (False, True):
        plan_file = plan_of(plan=PLAN | {"compile": compiled}, run=GPU)
        trainer = Trainer(plan_file, open_backend(plan_file, World()), open_dataset(Path(plan_file.data.directory)))
        trainer.train_step()
        assert trainer.model.is_captured == compiled
        assert trainer.note == ""


def test_a_run_by_graphs_evaluates_in_between_and_says_nothing_of_graphs(plan_of, work, tmp_path):
    asked = plan_of(plan=PLAN, run=GPU | {"evaluate_every_steps": 3}, data={"evaluation_split": "valid"})
    eager = work(asked)
    graphs = elsewhere(dataclasses.replace(asked, plan=dataclasses.replace(asked.plan, compile=True)), tmp_path, "graphs")
    captured = work(graphs)
    assert captured.losses == pytest.approx(eager.losses, rel=1e-4)
    scores = [[each.loss for each in ran.of(Evaluated)] for ran in (eager, captured)]
    assert len(scores[0]) > 1
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)
    assert captured.of(Noted) == []


@pytest.mark.parametrize("compiled", [False, True])
def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(plan_of, work, tmp_path, compiled):
    whole = plan_of(model={"dropout": 0.1}, plan=PLAN | {"compile": compiled}, run=GPU | {"deterministic": True})
    losses = work(whole).losses
    half = elsewhere(whole, tmp_path, "half")
    first, second = work(half, "--steps", "4"), work(half, "--resume")
    assert first.losses + second.losses == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_was_trained_is_scored_and_continued(plan_of, work, tmp_path, precision):
    trained = work(plan_of(plan=PLAN, run=GPU))
    after = {"checkpoint": str(trained.directory), **GPU}
    plan = PLAN | {"precision": precision}
    scored = work(
        elsewhere(plan_of(workload={"task": "score"}, plan=plan, data={"split": "valid"}), tmp_path, "scored", **after)
    )
    assert scored.finished.outcome == "ok", scored.finished.message
    assert 0 < scored.of(Evaluated)[0].loss < 6
    for compiled in (False, True):
        asked = plan_of(
            workload={"task": "generate"},
            steps=12,
            plan=plan | {"micro_batch": 2, "compile": compiled},
            sampling={"prompt": "the state", "temperature": 0.8, "top_k": 20},
        )
        text = work(elsewhere(asked, tmp_path, f"text-{compiled}", **after))
        assert text.finished.outcome == "ok", text.finished.message
        assert not [note for note in text.of(Noted) if "uncompiled" in note.text], text.of(Noted)
        assert all(each.text for each in text.of(Generated))


def test_what_does_not_fit_is_out_of_memory(plan_of, work):
    ran = work(plan_of(model={"mem_len": 400_000_000}, plan=PLAN, run=GPU))
    assert (ran.exit_code, ran.finished.outcome) == (4, "oom"), ran.finished.message
