"""Published runs read from a file and predicted: the accuracy that ships, and rows that cannot be."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from txlplan import resources
from txlplan.errors import InputError
from txlplan.hardware import devices
from txlplan.validation import Published, Row, Unreadable, Unscored, Validation, predict, rank, read_published, summarise

FILE = resources.shipped("profiles") / "measurements" / "published.csv"


@pytest.fixture(scope="module")
def shipped() -> Validation:
    return summarise(predict(read_published(FILE)))


def written(path: Path, *changes: dict[str, str], base: str = "nv282") -> Path:
    """A file with one row for each of `changes` to a published row."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(each for each in rows if each["id"] == base)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        writer.writeheader()
        writer.writerows({**row, **change} for change in changes)
    return path


def test_the_accuracy_that_ships(shipped):
    assert (len(shipped.rows), shipped.unscored) == (181, ())
    tokens, memory = shipped.overall.tokens_per_s, shipped.overall.peak_memory_bytes
    assert (tokens.n, memory.n) == (165, 45)
    assert tokens.mape < 0.05
    assert tokens.p90 < 0.11
    assert 0.7 <= tokens.coverage <= 0.9
    assert memory.mape < 0.04
    assert 0.7 <= memory.coverage <= 0.9
    assert shipped.wrong_fits == ()
    assert shipped.mean_of_groups < 0.055


def test_what_a_buyer_depends_on(shipped):
    """Of pairs of systems that differ by more than 10 %, and of the settings that were measured on one system."""
    found = rank(shipped.rows, {device.id: device for device in devices.all()})
    order = found.predicted
    assert order.pairs > 800
    assert order.right >= 0.97
    assert order.ratio_error <= 0.08
    assert found.systems > 40
    assert found.choice_loss <= 0.005


def test_a_file_of_many_rows_is_quick(tmp_path):
    changes = [{"id": str(index), "micro_batch_size": str(1 + index)} for index in range(60)]
    path = written(tmp_path / "many.csv", *changes)
    start = time.process_time()
    assert len(predict(read_published(path))) == 60
    assert (time.process_time() - start) * 797 / 60 < 30


def test_a_version_without_a_profile_is_extrapolated_from_the_nearest(tmp_path):
    row, own = predict(read_published(written(tmp_path / "x.csv", {"stack": "nvidia-19.09-eager"}, {})))
    assert isinstance(row, Row)
    assert isinstance(own, Row)
    assert (row.stack, row.extrapolated, own.extrapolated) == ("nvidia-20.06-eager", True, False)
    width = row.tokens_per_s.high / row.tokens_per_s.low
    assert width > 1.1 * own.tokens_per_s.high / own.tokens_per_s.low


def test_a_device_that_was_not_fitted_and_a_machine_without_a_profile(tmp_path):
    changes = {"device": "h100-sxm5-80gb", "system": "nowhere", "interconnect": "nvswitch3", "gradient_sync": "ddp"}
    eight, alone = predict(
        read_published(written(tmp_path / "x.csv", {**changes, "n_devices": "8"}, {**changes, "interconnect": ""}))
    )
    assert isinstance(eight, Row)
    assert isinstance(alone, Row)
    assert eight.extrapolated
    assert alone.tokens_per_s.predicted * 5 < eight.tokens_per_s.predicted < alone.tokens_per_s.predicted * 8


def test_replicas_exchange_nothing_and_the_context_is_what_the_row_says(tmp_path):
    changes = {"n_devices": "8", "interconnect": "nvswitch2"}
    path = written(tmp_path / "x.csv", {}, changes, {"context_memory_mib": "3000"}, base="lam-A100_SXM4-base-fp16-1")
    one, eight, other = predict(read_published(path))
    assert eight.tokens_per_s.predicted == pytest.approx(8 * one.tokens_per_s.predicted)
    assert other.peak_memory_bytes.predicted - one.peak_memory_bytes.predicted == pytest.approx((3000 - 784) * 2**20)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "v100-sxm2-17gb"}, "unknown device 'v100-sxm2-17gb'"),
        ({"stack": "jax-0.4"}, "unknown stack 'jax-0.4'"),
        ({"n_layer": "many"}, "n_layer = 'many' is not a number"),
        ({"mode": "dream"}, "mode 'dream'"),
        ({"precision": "fp9"}, "precision 'fp9'"),
        ({"optimizer": "sgd"}, "optimizer 'sgd'"),
        ({"n_devices": "3", "n_nodes": "2"}, "3 devices cannot be shared by 2 nodes"),
        ({"n_devices": "4", "system": "x", "interconnect": "string"}, "interconnect 'string'"),
        ({"n_head": "0"}, "n_head"),
    ],
)
def test_a_row_that_cannot_be_predicted_says_why(tmp_path, change, reason):
    (row,) = predict(read_published(written(tmp_path / "x.csv", change)))
    assert isinstance(row, Unscored)
    assert row.id == "nv282"
    assert reason in row.reason


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_published(tmp_path / "nothing.csv")
    (tmp_path / "x.csv").write_text("id,stack\n1,nvidia-20.06-eager\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column 'device'"):
        read_published(tmp_path / "x.csv")


def test_runs_that_ran_out_of_memory_have_no_throughput():
    runs = read_published(FILE)
    assert not any(isinstance(run, Unreadable) for run in runs)
    failed = [run for run in runs if isinstance(run, Published) and not run.fits]
    assert len(failed) == 16
    assert all(run.tokens_per_s is None for run in failed)
