"""Files are read strictly: what is wrong is named with its file and key, and what was meant is offered."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from pathlib import Path

import pytest

from txlplan.config import from_plain, parse_toml, read_toml, to_plain, to_toml
from txlplan.errors import ConfigError
from txlplan.hardware import DeviceProfile, SystemProfile
from txlplan.model import ModelConfig
from txlplan.plan_file import DataSettings, Plan, PlanFile, RunSettings, Sampling, read_plan_file, write_plan_file
from txlplan.workload import Optimization, Workload

DEVICE = {
    "id": "x1",
    "name": "X1",
    "kind": "gpu",
    "vendor": "acme",
    "architecture": "volta",
    "memory": "16 GiB",
    "memory_bandwidth": "900 GB/s",
    "peak": {"fp32": "15.7 TFLOP/s"},
    "cores": 80,
}


def test_units_are_read_into_si() -> None:
    device = parse_toml(DeviceProfile, DEVICE, "x1.toml")
    assert device.memory_bytes == 16 * 2**30
    assert device.peak("fp32") == 15.7e12
    assert device.peak("bf16") is None


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        ({"memry": "16 GiB"}, "x1.toml: unknown key 'memry'", "'memory'"),
        ({"memory": "16 GW"}, "x1.toml: memory: '16 GW': 'GW' is not a unit", ""),
        ({"memory": "-1 GiB"}, "must be more than zero", ""),
        ({"memory": 17179869184}, "has no unit", ""),
        ({"kind": "board"}, "x1.toml: kind: 'board' is not known", "known: gpu, "),
        ({"kind": "cgpu"}, "x1.toml: kind: 'cgpu' is not known", "did you mean 'gpu'?"),
        ({"match": "X1"}, "x1.toml: match = 'X1' must be a list", 'write it match = ["X1"]'),
        ({"peak": {"fp23": "1 TFLOP/s"}}, "x1.toml: peak.fp23: 'fp23' is not known", "did you mean 'fp32'?"),
        ({"cores": "many"}, "x1.toml: cores", ""),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], says: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(DeviceProfile, DEVICE | change, "x1.toml")
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="missing key 'memory'"):
        parse_toml(DeviceProfile, {key: value for key, value in DEVICE.items() if key != "memory"}, "x1.toml")


def test_a_nested_unknown_key_offers_the_nearest() -> None:
    raw = {"id": "s", "name": "S", "kind": "server", "device": "x1", "n_devices": 8}
    with pytest.raises(ConfigError, match=r"unknown key 'intra_node.bandwith'") as caught:
        parse_toml(SystemProfile, raw | {"intra_node": {"kind": "pcie3", "bandwidth": "12 GB/s", "bandwith": "1"}}, "s.toml")
    assert caught.value.hint == "did you mean 'bandwidth'?"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a = ", "not valid TOML"), (b"\xff\xfe", "not UTF-8 at byte 0"), (None, "no such file")],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_toml(path)
    assert str(path) in caught.value.message


def plan_file() -> PlanFile:
    model = ModelConfig(
        id="m", n_layer=2, d_model=8, n_head=2, d_head=4, d_inner=16, vocab_size=100, cutoffs=(10, 20), tgt_len=4, mem_len=4
    )
    return PlanFile(
        system="dgx-1",
        stack="txlplan-cuda",
        workload=Workload(model=model, tokens=10**9, optimization=Optimization(clip_norm=0.25), deadline_s=3600.0),
        plan=Plan(micro_batch=2, threads=2),
        data=DataSettings(directory="data", evaluation_split="valid"),
        run=RunSettings(directory="run"),
        sampling=Sampling(prompt='He said "no"\n\tand → left'),
    )


def test_a_plan_file_comes_back_equal(tmp_path: Path) -> None:
    write_plan_file(tmp_path / "plan.toml", plan_file())
    assert read_plan_file(tmp_path / "plan.toml") == plan_file()


def test_plain_values_come_back_equal() -> None:
    assert from_plain(PlanFile, to_plain(plan_file()), "record") == plan_file()


def test_a_plan_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(to_toml(plan_file()).replace("schema_version = 1", "schema_version = 99"), encoding="utf-8")
    with pytest.raises(ConfigError, match="newer"):
        read_plan_file(path)


def test_impossible_values_are_refused_with_their_key() -> None:
    with pytest.raises(ConfigError, match="micro_batch = 0 must be at least 1"):
        parse_toml(Plan, {"micro_batch": 0}, "plan.toml")
    with pytest.raises(ConfigError, match=r"cutoffs = \[20, 10\] must ascend"):
        from_plain(ModelConfig, to_plain(plan_file().workload.model) | {"cutoffs": [20, 10]}, "m.toml")


@pytest.mark.parametrize("module", ["hardware", "model", "workload", "plan_file", "records"])
def test_a_field_that_may_be_none_has_none_for_its_default(module: str) -> None:
    """TOML cannot say none: a value left out of a written file must come back as it was."""
    package = importlib.import_module(f"txlplan.{module}")
    for name in getattr(package, "__all__", dir(package)):
        cls = getattr(package, name)
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            continue
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if type(None) in typing.get_args(hints[field.name]) and field.default is not dataclasses.MISSING:
                assert field.default is None, f"{name}.{field.name}"
