"""Profiles are found along the search path, extend one another, and unknown ones are met with the nearest names."""

from __future__ import annotations

from pathlib import Path

import pytest

from txlplan import resources
from txlplan.errors import ConfigError
from txlplan.hardware import devices

BASE = """
name = "X1"
kind = "gpu"
vendor = "acme"
architecture = "volta"
memory = "16 GiB"
memory_bandwidth = "900 GB/s"
cores = 80
[peak]
fp32 = "15 TFLOP/s"
fp16 = "120 TFLOP/s"
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TXLPLAN_PROFILES", str(tmp_path / "mine"))
    path = tmp_path / "mine" / "devices"
    path.mkdir(parents=True)
    (path / "acme-x1.toml").write_text(BASE)
    return path


def test_a_users_profile_is_found_and_named_by_its_file(directory: Path) -> None:
    assert devices.get("acme-x1").id == "acme-x1"
    assert "acme-x1" in devices.paths()


def test_extends_overrides_key_by_key(directory: Path) -> None:
    (directory / "acme-x2.toml").write_text('extends = "acme-x1"\nmemory = "32 GiB"\n[peak]\nfp16 = "130 TFLOP/s"\n')
    device = devices.get("acme-x2")
    assert device.memory_bytes == 32 * 2**30
    assert device.peak_flops_per_s == {"fp32": 15e12, "fp16": 130e12}
    assert device.id == "acme-x2"


def test_extends_in_a_circle_is_refused(directory: Path) -> None:
    (directory / "a.toml").write_text('extends = "b"\n')
    (directory / "b.toml").write_text('extends = "a"\n')
    with pytest.raises(ConfigError, match="circle"):
        devices.get("a")


def test_an_unknown_name_is_met_with_the_nearest(directory: Path) -> None:
    with pytest.raises(ConfigError, match="unknown device 'acme-x3'") as caught:
        devices.get("acme-x3")
    assert "acme-x1" in (caught.value.hint or "")


def test_the_environment_comes_before_the_users_own_and_the_shipped(directory: Path) -> None:
    own = resources.user("profiles") / "devices"
    own.mkdir(parents=True)
    (own / "acme-x1.toml").write_text(BASE.replace("16 GiB", "8 GiB"))
    assert devices.get("acme-x1").memory_bytes == 16 * 2**30
    assert resources.search_path("profiles")[-1] == resources.shipped("profiles")


def test_a_path_is_read_as_a_file(directory: Path) -> None:
    assert devices.get(str(directory / "acme-x1.toml")).name == "X1"
