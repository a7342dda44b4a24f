"""Damaged checkpoints, and those of another model."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from txlplan.engine import checkpoint, checkpoint_state, tensor_files
from txlplan.errors import CheckpointError


@pytest.fixture
def run(plan_of, work):
    """A plan file whose run has a checkpoint after 2 of its 4 steps."""
    plan_file = plan_of(steps=4)
    work(plan_file, "--steps", "2")
    return plan_file


@pytest.fixture
def saved(run, tmp_path):
    """The run's checkpoint."""
    return checkpoint.newest(tmp_path / "run")


def offsets(path, name):
    """Where a tensor's bytes are in a safetensors file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    low, high = json.loads(raw[8 : 8 + length])[name]["data_offsets"]
    return 8 + length + low, 8 + length + high


def change_byte(path, offset):
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def holding(saved, name):
    """The file that has this tensor."""
    return saved / next(file for file, tensors in tensor_files.digests(saved).items() if name in tensors)


def refused(work, run):
    """The message with which resuming fails."""
    ran = work(run, "--resume")
    assert ran.exit_code == 4
    assert ran.finished.outcome == "failed"
    return ran.finished.message


def test_a_changed_bit_names_file_and_tensor(work, run, saved):
    name = "optimizer/layers.1.attention.qkv.weight/exp_avg"
    path = holding(saved, name)
    change_byte(path, offsets(path, name)[0] + 5)
    message = refused(work, run)
    assert str(path) in message
    assert repr(name) in message


def test_a_truncated_file_names_file_and_tensor(work, run, saved):
    name = "model/embedding.tables.0"
    path = holding(saved, name)
    path.write_bytes(path.read_bytes()[: offsets(path, name)[1] - 10])
    message = refused(work, run)
    assert str(path) in message
    assert "cut short" in message


@pytest.mark.parametrize("kept", [0, 5, 100])
def test_a_file_truncated_in_its_header_is_named(work, run, saved, kept):
    path = next(saved.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:kept])
    assert str(path) in refused(work, run)


def test_a_missing_file_is_named(work, run, saved):
    path = next(saved.glob("*.safetensors"))
    path.unlink()
    assert str(path) in refused(work, run)


@pytest.mark.parametrize("how", ["edited", "cut", "newer", "missing"])
def test_a_damaged_state_is_refused(work, run, saved, how):
    path = saved / "state.json"
    text = path.read_text()
    changed = {
        "edited": text.replace('"step": 2', '"step": 3'),
        "cut": text[:-30],
        "newer": text.replace('"schema_version": 1', '"schema_version": 99'),
    }
    assert how == "missing" or changed[how] != text
    path.unlink() if how == "missing" else path.write_text(changed[how])
    assert "state.json" in refused(work, run)


def test_an_earlier_checkpoint_is_taken_once_the_damaged_one_is_removed(work, run, saved):
    work(run, "--resume")
    last = checkpoint.newest(saved.parent.parent)
    assert last != saved
    (last / "state.json").write_text("{}")
    refused(work, run)
    shutil.rmtree(last)
    assert work(run, "--resume").finished.outcome == "ok"


def test_another_model_is_refused_by_its_first_difference(run, saved):
    state = checkpoint_state.read(saved)
    other = dataclasses.replace(state.model, n_head=4, d_head=4)
    with pytest.raises(CheckpointError, match="another model: its n_head is 2, tiny's is 4"):
        checkpoint_state.require_architecture(saved, state, other)


def test_another_optimizer_is_refused(work, plan_of, run, saved):
    assert "holds the state of adamw, the plan's optimizer is lamb" in refused(
        work, plan_of(steps=4, optimization={"optimizer": "lamb"})
    )


def test_a_place_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        checkpoint.locate(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.locate(tmp_path)


def test_a_half_written_checkpoint_is_not_taken_and_is_removed(work, run, saved):
    partial = saved.with_name(".step-000000003.partial")
    shutil.copytree(saved, partial)
    assert checkpoint.newest(saved.parent.parent) == saved
    assert work(run, "--resume").finished.outcome == "ok"
    assert not partial.exists()


def test_another_batch_keeps_the_weights_and_starts_the_streams_anew(work, plan_of, run, saved):
    ran = work(plan_of(steps=4, plan={"micro_batch": 2}, workload={"tokens": 8 * 2 * 4}), "--resume")
    assert ran.finished.outcome == "ok"
    assert len(ran.losses) == 2


def test_tensors_larger_than_a_bucket_are_spread_over_files(work, plan_of, monkeypatch, tmp_path):
    monkeypatch.setattr(tensor_files, "BUCKET_BYTES", 4096)
    plan_file = plan_of(steps=4)
    work(plan_file, "--steps", "2")
    assert len(list(checkpoint.newest(tmp_path / "run").glob("*.safetensors"))) > 5
    assert work(plan_file, "--resume").finished.outcome == "ok"
