"""Whole runs of the worker, in this process."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from txlplan.data import open_dataset, prepare
from txlplan.engine import backend as backend_module
from txlplan.engine import checkpoint, evaluation, events, tensor_files
from txlplan.engine.backend import open_backend
from txlplan.engine.event_log import EventLog
from txlplan.engine.events import Evaluated, Generated, Noted, Saved, Started, Step, Streamed
from txlplan.engine.stopping import StopRequest
from txlplan.engine.support import multiplies_bf16
from txlplan.engine.tasks import Job, train
from txlplan.engine.training import Trainer
from txlplan.engine.world import World
from txlplan.nn import _own_code
from txlplan.nn._widened import has_fast_bf16
from txlplan.plan_file import read_plan_file

COMPILES = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: nothing is compiled")


def weights(path):
    """Every tensor of the model in a checkpoint."""
    found = {
        name: torch.empty(shape, dtype=dtype)
        for name, (shape, dtype) in tensor_files.specifications(path).items()
        if name.startswith("model/")
    }
    tensor_files.read(path, found)
    return found


def elsewhere(plan_file, tmp_path, name, **run):
    """The same plan in another run directory."""
    return dataclasses.replace(plan_file, run=dataclasses.replace(plan_file.run, directory=str(tmp_path / name), **run))


def test_training_learns_saves_and_evaluates(plan_of, work):
    plan_file = plan_of(
        steps=60,
        data={"evaluation_split": "valid"},
        run={"checkpoint_every_steps": 25, "evaluate_every_steps": 30},
        optimization={"schedule": "cosine", "warmup_steps": 5, "clip_norm": 1.0},
    )
    ran = work(plan_file)
    assert ran.exit_code == 0
    assert ran.finished.outcome == "ok"
    assert ran.finished.peak_memory_bytes > 50e6
    (started,) = ran.of(Started)
    assert (started.step, started.total_steps, started.world_size) == (0, 60, 1)
    steps = ran.of(Step)
    assert [step.step for step in steps] == list(range(1, 61))
    assert all(step.tokens == 32 and step.step_s > 0 for step in steps)
    assert steps[-1].loss < steps[0].loss - 1.5
    assert steps[0].learning_rate == pytest.approx(1e-2 / 5)
    assert [saved.step for saved in ran.of(Saved)] == [25, 50, 60]
    assert [(event.step, event.split) for event in ran.of(Evaluated)] == [(30, "valid"), (60, "valid")]
    last = ran.of(Evaluated)[-1]
    assert last.perplexity == pytest.approx(math.exp(last.loss))
    assert last.bits_per_character < 4.5


@pytest.mark.parametrize(
    ("model", "plan", "optimization", "precision"),
    [
        ({"tgt_len": 32}, {"micro_batch": 64}, {"optimizer": "adamw"}, "fp32"),  # passes the end of the data twice
        ({"dropout": 0.1, "dropatt": 0.1}, {"micro_batch": 2, "accumulation": 2}, {"optimizer": "lamb"}, "fp32"),
        ({"dropout": 0.1}, {"activation_checkpointing": "full"}, {"optimizer": "adam", "clip_norm": 0.5}, "bf16"),
        pytest.param(
            {"dropout": 0.1, "dropatt": 0.1}, {"attention": "compiled"}, {"optimizer": "adamw"}, "fp32", marks=COMPILES
        ),
        ({}, {}, {"optimizer": "adafactor"}, "fp16"),
    ],
)
def test_resuming_is_bit_exact(plan_of, work, tmp_path, model, plan, optimization, precision):
    plan_file = plan_of(steps=40, model=model, plan={**plan, "precision": precision}, optimization=optimization)
    whole = work(elsewhere(plan_file, tmp_path, "whole"))
    halves = elsewhere(plan_file, tmp_path, "halves")
    first, second = work(halves, "--steps", "20"), work(halves, "--resume")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert second.of(Started)[0].step == 20
    assert first.losses + second.losses == whole.losses
    one, two = (weights(checkpoint.newest(ran.directory)) for ran in (whole, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_from_a_checkpoint_of_another_run_takes_its_weights_only(plan_of, work, tmp_path):
    """As many steps as the first run made, and another optimizer: what it had got to must not count."""
    first = work(elsewhere(plan_of(steps=60), tmp_path, "first"))
    given = {"checkpoint": str(first.directory)}
    second_plan = elsewhere(
        plan_of(steps=20, optimization={"optimizer": "adam", "warmup_steps": 5}), tmp_path, "second", **given
    )
    second = work(second_plan, "--steps", "12")
    assert second.of(Started)[0].step == 0
    assert [step.step for step in second.of(Step)] == list(range(1, 13))
    assert second.of(Step)[0].learning_rate == pytest.approx(1e-2 / 5)
    assert second.losses[0] < first.losses[0] - 1.5
    resumed = work(second_plan, "--resume")
    assert resumed.of(Started)[0].step == 12, "its own checkpoint comes before the given one"
    assert len(resumed.of(Step)) == 8


def test_training_from_a_checkpoint_goes_on_other_data(plan_of, work, tmp_path):
    first = work(elsewhere(plan_of(steps=60), tmp_path, "first"))
    (tmp_path / "other.txt").write_text("the people is strong and the union free.\n" * 40)
    prepare([tmp_path / "other.txt"], tmp_path / "other", processes=1)
    other = plan_of(steps=6)
    other = dataclasses.replace(other, data=dataclasses.replace(other.data, directory=str(tmp_path / "other")))
    ran = work(elsewhere(other, tmp_path, "second", checkpoint=str(checkpoint.newest(first.directory))))
    assert ran.finished.outcome == "ok", ran.finished.message
    assert [step.step for step in ran.of(Step)] == [1, 2, 3, 4, 5, 6]
    assert ran.losses[0] < first.losses[0] - 1.5


def test_accumulation_gives_the_loss_of_one_large_micro_batch(plan_of, work, tmp_path):
    large = work(elsewhere(plan_of(plan={"micro_batch": 8}), tmp_path, "large"))
    split = work(elsewhere(plan_of(plan={"micro_batch": 4, "accumulation": 2}), tmp_path, "split"))
    assert split.losses == pytest.approx(large.losses, abs=1e-5)


def test_activation_checkpointing_gives_the_same_losses(plan_of, work, tmp_path):
    plain = work(elsewhere(plan_of(model={"dropout": 0.1}), tmp_path, "plain"))
    again = work(elsewhere(plan_of(model={"dropout": 0.1}, plan={"activation_checkpointing": "full"}), tmp_path, "again"))
    assert again.losses == pytest.approx(plain.losses, abs=1e-6)


@COMPILES
@pytest.mark.parametrize("how", ["attention", "feed-forward", "full"])
def test_activation_checkpointing_gives_the_same_losses_with_dropout_by_our_own_code(plan_of, work, tmp_path, how):
    model, own = {"dropout": 0.1, "dropatt": 0.1}, {"attention": "compiled"}
    plain = work(elsewhere(plan_of(model=model, plan=own), tmp_path, "plain"))
    again = work(elsewhere(plan_of(model=model, plan=own | {"activation_checkpointing": how}), tmp_path, "again"))
    assert again.losses == plain.losses


def test_reduced_precision_stays_near_fp32(plan_of, work, tmp_path):
    runs = {
        precision: work(elsewhere(plan_of(steps=20, plan={"precision": precision}), tmp_path, precision)).losses
        for precision in ("fp32", "bf16", "fp16")
    }
    assert runs["bf16"] == pytest.approx(runs["fp32"], rel=0.03)
    assert runs["fp16"] == pytest.approx(runs["fp32"], rel=0.03)


def test_scoring_and_generating_from_a_run(plan_of, work, tmp_path):
    trained = work(plan_of(steps=60, data={"evaluation_split": "valid"}))
    score = plan_of(steps=None, workload={"task": "score"}, data={"split": "valid"})
    scored = work(elsewhere(score, tmp_path, "score", checkpoint=str(trained.directory)))
    assert scored.of(Evaluated)[0].loss == pytest.approx(trained.of(Evaluated)[-1].loss, abs=1e-6)
    assert scored.of(Started)[0].total_steps == len(scored.of(Step))

    generate = plan_of(
        workload={"task": "generate", "tokens": 30}, plan={"micro_batch": 2}, sampling={"prompt": "the state of ", "top_k": 5}
    )
    generate = elsewhere(generate, tmp_path, "generate", checkpoint=str(checkpoint.newest(trained.directory)))
    first, again = work(generate), work(generate)
    assert len(first.of(Step)) == 30
    assert len(first.of(Generated)) == 2
    assert [event.text for event in again.of(Generated)] == [event.text for event in first.of(Generated)]
    assert [streamed(first, row) for row in range(2)] == [event.text.replace("\ufffd", "") for event in first.of(Generated)]


def generated_compiled(plan_of, work, tmp_path):
    """What a plain and a compiled run generate with the same weights."""
    trained = work(plan_of(steps=20))
    for compiled in (False, True):
        plan_file = plan_of(
            workload={"task": "generate", "tokens": 12},
            plan={"micro_batch": 2, "compile": compiled},
            sampling={"temperature": 0.0},
        )
        yield work(elsewhere(plan_file, tmp_path, f"compiled-{compiled}", checkpoint=str(trained.directory)))


@COMPILES
def test_a_compiled_step_writes_the_same_text(plan_of, work, tmp_path):
    plain, compiled = generated_compiled(plan_of, work, tmp_path)
    assert ["compiling" in note.text for note in compiled.of(Noted)] == [True]
    assert compiled.of(Generated) == plain.of(Generated)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that is there and compiles nothing, for code of our own and for torch's, which reads CXX but once."""
    monkeypatch.setenv("CXX", "false")
    _own_code.library.cache_clear()
    with torch._inductor.config.patch({"cpp.cxx": ("false",), "force_disable_caches": True}):
        yield


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_plain_step_runs_and_says_so(plan_of, work, tmp_path):
    plain, compiled = generated_compiled(plan_of, work, tmp_path)
    assert compiled.exit_code == 0
    assert "runs uncompiled" in compiled.of(Noted)[-1].text
    assert compiled.of(Generated) == plain.of(Generated)


@COMPILES
@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-4), *([("bf16", 3e-3)] if multiplies_bf16() else [])])
def test_attention_by_our_own_code_learns_the_same(plan_of, work, tmp_path, precision, within):
    tiles, own = (
        work(elsewhere(plan_of(steps=20, plan={"attention": path, "precision": precision}), tmp_path, path))
        for path in ("fast", "compiled")
    )
    assert own.exit_code == 0
    assert own.of(Noted) == tiles.of(Noted)
    losses = [[step.loss for step in ran.of(Step)] for ran in (tiles, own)]
    assert losses[0] == pytest.approx(losses[1], rel=within)


@COMPILES
def test_attention_by_our_own_code_scores_the_same(plan_of, work, tmp_path):
    trained = work(plan_of(steps=30))
    losses = []
    for path in ("fast", "compiled"):
        score = plan_of(steps=None, workload={"task": "score"}, data={"split": "valid"}, plan={"attention": path})
        scored = work(elsewhere(score, tmp_path, path, checkpoint=str(trained.directory)))
        losses.append(scored.of(Evaluated)[0].loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_attention_in_cpp_is_refused_and_says_what_to_do(plan_of, work, capsys):
    ran = work(plan_of(steps=5, plan={"attention": "compiled"}))
    assert ran.exit_code == 4
    assert ran.of(Step) == []
    assert 'attention = "fast"' in capsys.readouterr().err


def streamed(ran, row):
    """The text of a row as it was shown piece by piece, without what stands for bytes that are no text."""
    return "".join(event.text for event in ran.of(Streamed) if event.row == row).replace("\ufffd", "")


def test_rows_of_unequal_prompts_end_at_their_stop_string(plan_of, work, tmp_path):
    """Trained on words with spaces: a row ends before its first space, the run once all have."""
    trained = work(plan_of(steps=60))
    plan_file = plan_of(
        workload={"task": "generate", "tokens": 300},
        plan={"micro_batch": 4},
        sampling={"prompt": "the st", "more_prompts": ["is"], "stop": (" ",), "temperature": 0.7},
    )
    ran = work(elsewhere(plan_file, tmp_path, "generate", checkpoint=str(trained.directory)))
    assert ran.finished.outcome == "ok"
    texts = [event.text for event in ran.of(Generated)]
    assert len(texts) == 4
    assert not any(" " in text for text in texts)
    assert [text.replace("\ufffd", "") for text in texts] == [streamed(ran, row) for row in range(4)]
    assert max(len(text) for text in texts) < len(ran.of(Step)) < 300


def test_an_evaluation_that_is_stopped_says_so(plan_of, work):
    """Of a run that has made all its steps, and has but to be scored."""
    plan_file = plan_of(steps=2, data={"evaluation_split": "valid"})
    trained = work(plan_file)
    assert len(trained.of(Evaluated)) == 1
    assert not trained.of(Noted)
    job = Job(
        plan_file=plan_file,
        backend=open_backend(plan_file, World()),
        dataset=open_dataset(Path(plan_file.data.directory)),
        log=EventLog(trained.directory, World()),
        stop=StopRequest(),
        steps=None,
        resume=True,
    )
    job.stop.requested = True
    train(job)
    after = events.read(trained.directory / events.FILE_NAME)[0]
    assert len([event for event in after if isinstance(event, Evaluated)]) == 1
    assert "its loss is not known" in next(event.text for event in after if isinstance(event, Noted))


@pytest.mark.parametrize("units", [True, False])
def test_a_run_evaluates_in_the_precision_that_it_would_be_scored_in(plan_of, tmp_path, monkeypatch, units):
    monkeypatch.setattr(backend_module, "has_fast_bf16", lambda: units)
    plan_file = plan_of(steps=1, plan={"precision": "bf16"}, data={"evaluation_split": "valid"})
    scored, score = [], evaluation.score
    monkeypatch.setattr(
        evaluation,
        "score",
        lambda model, backend, *rest, **more: scored.append(backend) or score(model, backend, *rest, **more),
    )
    job = Job(
        plan_file=plan_file,
        backend=open_backend(plan_file, World()),
        dataset=open_dataset(Path(plan_file.data.directory)),
        log=EventLog(tmp_path, World()),
        stop=StopRequest(),
        steps=None,
        resume=False,
    )
    assert train(job) == "ok"
    assert job.backend.precision == "bf16"
    assert [backend.precision for backend in scored] == ["bf16" if units else "fp32"]


@pytest.mark.parametrize("task", ["score", "generate"])
def test_a_cpu_that_is_no_faster_in_bf16_says_what_it_computes_in(plan_of, work, tmp_path, task):
    trained = work(plan_of(steps=1))
    asked = plan_of(steps=None, workload={"task": task, "tokens": 4}, plan={"precision": "bf16"}, data={"split": "valid"})
    ran = work(elsewhere(asked, tmp_path, task, checkpoint=str(trained.directory)))
    assert ["computing in fp32" in note.text for note in ran.of(Noted)] == ([] if has_fast_bf16() else [True])


@COMPILES
@pytest.mark.skipif(has_fast_bf16(), reason="needs a CPU without units for bf16")
def test_a_plan_in_bf16_that_computes_in_fp32_has_attention_in_cpp(plan_of, work, tmp_path):
    trained = work(plan_of(steps=1))
    losses = []
    for precision in ("fp32", "bf16"):
        plan = {"precision": precision, "attention": "compiled"}
        score = plan_of(steps=None, workload={"task": "score"}, data={"split": "valid"}, plan=plan)
        scored = work(elsewhere(score, tmp_path, precision, checkpoint=str(trained.directory)))
        losses.append(scored.of(Evaluated)[0].loss)
    assert losses[0] == losses[1]


def test_rows_that_are_no_multiple_of_the_prompts_are_refused(plan_of, work, tmp_path):
    trained = work(plan_of(steps=1))
    plan_file = plan_of(workload={"task": "generate"}, plan={"micro_batch": 3}, sampling={"more_prompts": ("a",)})
    ran = work(elsewhere(plan_file, tmp_path, "generate", checkpoint=str(trained.directory)))
    assert ran.exit_code == 4
    assert "3 rows are no multiple of the 2 prompts" in ran.finished.message


def test_weights_alone_are_trained_on_with_any_optimizer(plan_of, work, tmp_path):
    """From the weights of another run, without its optimizer's states: the first loss is that of a trained model."""
    trained = work(plan_of(steps=60))
    model = checkpoint.load_model(checkpoint.newest(trained.directory))
    checkpoint.save_weights(tmp_path / "bare", model.config, model.state_dict())
    plan_file = elsewhere(plan_of(optimization={"optimizer": "lamb"}), tmp_path, "on", checkpoint=str(tmp_path / "bare"))
    ran = work(plan_file)
    assert ran.exit_code == 0
    assert [event.step for event in ran.of(Step)] == list(range(1, 9))
    assert ran.losses[0] < trained.losses[0] - 1.5


def test_a_score_that_is_not_finite_is_told_as_that(plan_of, work, tmp_path):
    damaged = elsewhere(plan_of(), tmp_path, "damaged")
    trainer = Trainer(damaged, open_backend(damaged, World()), open_dataset(Path(damaged.data.directory)))
    next(trainer.model.parameters()).data.fill_(math.nan)
    checkpoint.save(tmp_path / "damaged", trainer, final=True)
    score = plan_of(steps=None, workload={"task": "score"}, data={"split": "valid"})
    scored = work(elsewhere(score, tmp_path, "score", checkpoint=str(tmp_path / "damaged")))
    assert scored.exit_code == 4
    assert scored.finished.message == "the score is nan: the weights are not usable"
    assert set(scored.losses) == {None}


def test_a_part_of_a_split_is_scored(plan_of, work, tmp_path):
    trained = work(plan_of(steps=2))
    score = plan_of(workload={"task": "score", "tokens": 100}, data={"split": "valid"})
    scored = work(elsewhere(score, tmp_path, "score", checkpoint=str(trained.directory)))
    assert sum(event.tokens for event in scored.of(Step)) == 128


HOT, COOL = 1e18, 1e-2


def with_rate(plan_file, learning_rate):
    """The same plan with another learning rate, from its first step on."""
    optimization = dataclasses.replace(
        plan_file.workload.optimization, learning_rate=learning_rate, schedule="constant", warmup_steps=0
    )
    return dataclasses.replace(plan_file, workload=dataclasses.replace(plan_file.workload, optimization=optimization))


def follow(hint, directory):
    """Do what the hint says: lower the learning rate in the run's plan file; the plan file that is then resumed."""
    path = directory / "plan.toml"
    assert f"learning_rate (now 1e+18) under [workload.optimization] in {path}" in hint
    assert f"`txlplan run {directory} --resume`" in hint
    before, section = path.read_text().split("[workload.optimization]\n")
    lowered = re.sub(r"^learning_rate = .*$", f"learning_rate = {COOL}", section, count=1, flags=re.MULTILINE)
    assert lowered != section
    path.write_text(f"{before}[workload.optimization]\n{lowered}")
    return read_plan_file(path)


def test_a_non_finite_loss_names_the_step_and_the_last_checkpoint(plan_of, work, capsys):
    plan_file = plan_of(steps=30, run={"checkpoint_every_steps": 2})
    work(plan_file, "--steps", "4")
    ran = work(with_rate(plan_file, HOT), "--resume")
    assert ran.exit_code == 4
    assert ran.finished.outcome == "failed"
    step = len(ran.of(Step)) + 5
    assert f"step {step}" in ran.finished.message or "no longer finite" in ran.finished.message
    newest = checkpoint.newest(ran.directory)
    assert f"the last checkpoint is good: {newest}" in ran.finished.message
    assert all(bool(tensor.isfinite().all()) for tensor in weights(newest).values())
    (hint,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hint: ")]
    resumed = work(follow(hint, ran.directory), "--resume")
    assert resumed.finished.outcome == "ok", resumed.finished.message
    assert newest.name == f"step-{resumed.of(Started)[0].step:09d}"


def test_a_non_finite_loss_before_the_first_checkpoint_promises_none(plan_of, work, capsys):
    ran = work(with_rate(plan_of(steps=30), HOT))
    assert ran.finished.outcome == "failed"
    assert ran.of(Saved) == []
    assert re.fullmatch(r"the loss became \S+ in step \d+; no checkpoint had been saved", ran.finished.message)
    (hint,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hint: ")]
    assert "start with --learning-rate in a new --directory" in hint
    resumed = work(follow(hint, ran.directory), "--resume")
    assert resumed.finished.outcome == "ok", resumed.finished.message
    assert resumed.of(Started)[0].step == 0


def test_running_out_of_memory_is_an_outcome_of_its_own(plan_of, work):
    """A weight of 2 PiB is beyond the address space of any machine."""
    ran = work(plan_of(model={"d_inner": 2**45}))
    assert ran.exit_code == 4
    assert ran.finished.outcome == "oom", ran.finished.message
    assert ran.finished.peak_memory_bytes > 0


def test_retention_keeps_two_and_the_final_one(plan_of, work):
    ran = work(plan_of(steps=9, run={"checkpoint_every_steps": 2}))
    kept = sorted(path.name for path in (ran.directory / "checkpoints").iterdir())
    assert kept == ["step-000000006", "step-000000008", "step-000000009"]


def test_a_new_run_does_not_overwrite_checkpoints(plan_of, work):
    plan_file = plan_of(steps=2)
    work(plan_file)
    again = work(plan_file)
    assert again.exit_code == 4
    assert "already holds step-000000002" in again.finished.message


def test_resuming_a_finished_run_does_nothing(plan_of, work):
    plan_file = plan_of(steps=2)
    work(plan_file)
    again = work(plan_file, "--resume")
    assert again.finished.outcome == "ok"
    assert again.of(Step) == []
